"""How text becomes hashed features."""
