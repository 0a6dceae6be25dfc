"""How the API runs, in one process or several."""
