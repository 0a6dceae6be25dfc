"""Which words spoke for a label, and how much."""
