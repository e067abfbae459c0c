"""AdamW and Muon, one training step, the loop, exact resume, loss spikes."""
