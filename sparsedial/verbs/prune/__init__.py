"""`prune`: what is turned off, what it costs and saves, recovery, comparisons, splitting into experts."""
