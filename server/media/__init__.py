"""Media: what happens to packets."""
