"""`serve` and its settings."""
