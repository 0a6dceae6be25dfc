"""What flows: records, the logs that carry them, and the order in which they are read."""
