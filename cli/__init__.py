"""The commands, one a file: each reads its flags, calls the folders, and prints. What is heavy is imported inside."""
