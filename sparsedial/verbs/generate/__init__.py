"""`generate` and its settings."""
