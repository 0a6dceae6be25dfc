"""How a request is read, and its answer written."""
