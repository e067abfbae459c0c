"""One training run and its executors (local, simulated): job, execution, state, timing, retries."""
