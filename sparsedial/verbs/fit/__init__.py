"""`fit` and its settings."""
