"""What the routes share: the served model, the log, what works, what is counted."""
