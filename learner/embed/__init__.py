"""What a text says: sentence models, which give one vector for all of it."""
