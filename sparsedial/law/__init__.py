"""Forms of scaling laws, the published ones, fitting, held-out checks, tables of runs."""

from sparsedial.law.literature import published

__all__ = ["published"]
