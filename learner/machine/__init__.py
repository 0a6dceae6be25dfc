"""What a batch of records changes: all that a replay must give again, byte for byte."""
