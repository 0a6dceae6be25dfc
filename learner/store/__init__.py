"""Copies of checkpoints in an object store."""
