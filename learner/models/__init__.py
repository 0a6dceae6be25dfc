"""What a classifier is, and the simple ones."""
