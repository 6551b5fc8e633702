"""The compiled fast path: what happens to every packet, and nothing else. See ../README.md."""
