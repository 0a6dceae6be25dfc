"""How much at once, and whose turn it is."""
