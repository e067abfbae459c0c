"""The transformer in one file, attention, router, the decoder with its cache, checkpoints as tensor streams."""
