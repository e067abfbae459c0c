"""`evaluate`: a text's loss, and scores on tasks."""
