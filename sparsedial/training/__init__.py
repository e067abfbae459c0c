"""AdamW and Muon, one training step, the loop, the dial, exact resume, loss spikes."""
