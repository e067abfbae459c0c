"""lm-eval is an extra: who asks a task calls this before any module that needs it is imported."""

from __future__ import annotations

from importlib import import_module

from sparsedial.errors import needs


def require_lm_eval() -> None:
    """Raises: UserError where lm-eval is missing."""
    with needs("lm-eval", "evaluate"):
        import_module("lm_eval")
