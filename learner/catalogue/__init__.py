"""Which messages are there, and which of them does somebody look for?"""
