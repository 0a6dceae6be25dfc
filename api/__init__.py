"""What answers: an HTTP sidecar that appends to the log and serves the learner's snapshots."""
