"""`count`."""
