"""The systems that are measured, each in a process of its own: `python -m bench.peers PEER ...` (see protocol.py)."""
