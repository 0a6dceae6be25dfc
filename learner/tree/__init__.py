"""A Hoeffding tree on hashed text."""
