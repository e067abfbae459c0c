"""`profile`."""
