"""A training run, its executors, its state and its record; folders for its ranks and for the machines of a study."""
