"""What survives a crash, a power cut and a full disk."""
