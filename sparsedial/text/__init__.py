"""Corpus, tokenizer, splits, the manifest of documents, the sampler that gives each step its batch."""
