"""How a batch of values becomes records, in columns."""
