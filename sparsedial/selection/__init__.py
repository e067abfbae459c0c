"""The data that does not matter: exact and near copies, scores, which part of a text stays."""
