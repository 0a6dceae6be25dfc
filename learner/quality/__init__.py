"""How good a model is, when that changes, and whether it is good enough to be served."""
