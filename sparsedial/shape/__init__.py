"""The Shape, its counts, Hugging Face's `config.json` in and out, published models."""
