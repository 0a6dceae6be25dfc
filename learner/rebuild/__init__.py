"""A model built anew from the log: without some labels, or to prove a checkpoint."""
