"""One training run and its executors (local, in process, simulated): job, execution, state, timing, retries."""
