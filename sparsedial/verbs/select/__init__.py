"""`select`: what stays of a text, and what that does to models."""
