"""Pictures, the report, progress and the dial page, all drawn from records."""
