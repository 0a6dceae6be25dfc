"""Several models whose words are weighed on line."""
