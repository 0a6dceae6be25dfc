"""The one writer: reads the log, learns, saves, publishes, recovers."""
