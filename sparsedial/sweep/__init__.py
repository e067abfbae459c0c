"""A study: question, design, learning rates, grid, rivals, verdict, findings; the driver runs them in order."""
