"""Generation: sampling, speculation with the model's own heads, the engine."""
