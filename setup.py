"""The compiled CPU kernels and text functions; the rest is in pyproject.toml. Installs without a C compiler, too."""

import os
import sys
import zlib
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

# Sums in any order, but not -ffast-math: linked into a library it would flush denormals in the whole process.
SUMS = "-fno-math-errno -fassociative-math -fno-signed-zeros -fno-trapping-math -freciprocal-math -ffp-contract=fast"
CHECKED = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"  # see `make sanitize`
SANITIZE = CHECKED.split() if os.environ.get("SPARSEDIAL_SANITIZE") else []
MACHINE = os.environ.get("SPARSEDIAL_MARCH", "native")  # for a wheel that other machines get: x86-64-v3, say

CHECKSUM = zlib.crc32(Path("sparsedial/kernels/csrc/kernels.h").read_bytes())  # held against it when it is loaded

KERNELS = Extension(
    "sparsedial.kernels._native",
    sorted(glob("sparsedial/kernels/csrc/*.c")),
    depends=sorted(glob("sparsedial/kernels/csrc/*.h")),
    define_macros=[("HEADER_CHECKSUM", f"{CHECKSUM}u")],
    # -fopenmp is not handed to the linker: the functions it calls are those of PyTorch's own OpenMP
    extra_compile_args=["-O3", *SUMS.split(), f"-march={MACHINE}", "-fopenmp", "-fvisibility=hidden", *SANITIZE],
    extra_link_args=SANITIZE,
    optional=True,
)

WORDS_SOURCE = "sparsedial/text/csrc/words.c"
WORDS = Extension(
    "sparsedial.text._words",
    [WORDS_SOURCE],
    define_macros=[("WORDS_CHECKSUM", f"{zlib.crc32(Path(WORDS_SOURCE).read_bytes())}u")],
    extra_compile_args=["-O3", f"-march={MACHINE}", "-fvisibility=hidden", *SANITIZE],
    extra_link_args=SANITIZE,
    optional=True,
)

setup(ext_modules=[KERNELS, WORDS] if sys.platform == "linux" else [])
