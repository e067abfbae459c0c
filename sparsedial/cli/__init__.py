"""Parse, call the verb, print."""
