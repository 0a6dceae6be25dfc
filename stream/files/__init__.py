"""How labelled files get into the log."""
