"""The commands that copy a checkpoint to another place, and fetch it from there."""
