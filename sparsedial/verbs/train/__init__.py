"""`train`: its plan, its checkpoint to go on from, its ranks, its selection of tokens."""
