"""What the loop holds between two batches, and what it has still to say and to save."""
