"""One training run and its executors (local, in process, spread, simulated): job, execution, state, timing, retries; ranks, machines."""
