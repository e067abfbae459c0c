"""`dial`: its page, and the measurement of a checkpoint's settings."""
