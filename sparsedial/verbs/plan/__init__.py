"""`plan`, and the shapes that it looks among."""
