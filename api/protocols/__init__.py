"""What other systems' clients get."""
