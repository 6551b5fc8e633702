"""Measurements worth keeping; README.md tells how they are made and how to read them."""
