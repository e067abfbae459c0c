"""The data that does not matter: copies, rules of quality, scores, which part of a text stays."""
