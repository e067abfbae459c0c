"""A study: question, design, learning rates, grid, rivals, verdict, findings; the effect of a selection."""
