"""Which message a label is about."""
