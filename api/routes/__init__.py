"""The routes for programs and for people."""
