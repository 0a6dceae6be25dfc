"""What the outside is told: status, metrics, history, which messages to label."""
