"""What a record looks like on the wire."""
