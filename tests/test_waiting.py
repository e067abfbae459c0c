"""Threads wait without spinning wherever the package is used, unless the user has said how they wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sparsedial import WAITS

SAY = "import os, sparsedial; print({name: os.environ[name] for name in sparsedial.WAITS if name in os.environ})"


def said(**variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in WAITS}
    done = subprocess.run([sys.executable, "-c", SAY], env=kept | variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_lets_threads_wait_passively():
    assert said() == "{'OMP_WAIT_POLICY': 'passive'}"


@pytest.mark.parametrize("name", WAITS)
def test_what_the_user_has_set_stays(name):
    assert said(**{name: "5"}) == f"{{'{name}': '5'}}"


def test_it_is_set_before_the_runtime_is_loaded():
    """The runtime itself says how it waits when it starts."""
    code = "import sparsedial.kernels.native"
    kept = {name: value for name, value in os.environ.items() if name not in WAITS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
