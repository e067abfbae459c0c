"""Parse, call the verb, print."""

INTERRUPTED = 130  # the exit status after Ctrl-C
