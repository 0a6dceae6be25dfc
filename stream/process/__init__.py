"""How a process is told what to do, and what it says."""
