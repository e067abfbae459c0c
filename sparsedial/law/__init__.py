"""Laws: loss as a function of size, data and sparsity."""

from sparsedial.law.literature import published

__all__ = ["published"]
