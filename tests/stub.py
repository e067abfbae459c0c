"""What editors show of `import sparsedial`, since its functions are made of settings: `python -m tests.stub`."""

from __future__ import annotations

import inspect
import itertools
import re
import textwrap
from pathlib import Path
from typing import Any

import sparsedial
from sparsedial.verbs import VERBS, Verb
from sparsedial.verbs.python import documented, signature

STUB = Path(sparsedial.__file__).with_name("__init__.pyi")
OPENING = """# Written by `python -m tests.stub` from the settings of each command.
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

{imports}

WAITS: tuple[str, ...]
__version__: str

def load(folder: str | os.PathLike[str], setting: str | None = None) -> Any:
{load}

def lm_eval_model(folder: str | os.PathLike[str], setting: str | None = None) -> Any:
{lm_eval_model}
"""


def stub() -> str:
    """The content of the stub."""
    modules = sorted({(name.__module__, name.__name__) for verb in VERBS.values() for name in _returned(verb)})
    imports = "\n".join(
        f"from {module} import {', '.join(name for _, name in names)}"
        for module, names in itertools.groupby(modules, key=lambda pair: pair[0])
    )
    opening = OPENING.format(
        imports=imports,
        load=_docstring(sparsedial.load.__doc__ or ""),
        lm_eval_model=_docstring(sparsedial.lm_eval_model.__doc__ or ""),
    )
    return "\n".join([opening.rstrip(), *(_function(verb) for verb in VERBS.values()), ""])


def _returned(verb: Verb) -> tuple[type, ...]:
    hint: Any = signature(verb).return_annotation
    return getattr(hint, "__args__", (hint,))


def _function(verb: Verb) -> str:
    lines: list[str] = []
    for parameter in signature(verb).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "    *," not in lines:
            lines.append("    *,")
        default = "" if parameter.default is inspect.Parameter.empty else f" = {_default(parameter.default)}"
        lines.append(f"    {parameter.name}: {_type(parameter.annotation)}{default},")
    returned = " | ".join(cls.__name__ for cls in _returned(verb))
    return "\n".join([f"def {verb.name}(", *lines, f") -> {returned}:", _docstring(documented(verb))])


def _docstring(text: str) -> str:
    return textwrap.indent(f'"""{inspect.cleandoc(text)}\n"""', "    ", lambda line: bool(line.strip()))


def _default(value: Any) -> str:
    return repr(str(value)) if isinstance(value, Path) else "..." if isinstance(value, dict | tuple) else repr(value)


def _type(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    return re.sub(r"\b(?:pathlib|_local|typing|collections\.abc)\.", "", text)


if __name__ == "__main__":
    STUB.write_text(stub())
