"""Which model the API answers with, and how it sees it."""
