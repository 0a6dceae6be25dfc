"""What a log is, and in which order its partitions are read."""
