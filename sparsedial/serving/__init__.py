"""Generation: sampling, speculation with the model's own heads, the engine, the OpenAI-compatible server."""
