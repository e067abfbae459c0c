"""`study` and its settings, its texts and its machines."""
