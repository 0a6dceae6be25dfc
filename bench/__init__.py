"""How good and how fast, beside the peers? `python -m bench` measures both and writes a report."""
