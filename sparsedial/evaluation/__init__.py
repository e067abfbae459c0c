"""The scorer, and loss and bits per byte on top of it."""
