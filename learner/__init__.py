"""What learns: classifiers, and the one loop that reads the log and changes a model."""
