"""Signalling: who is in a room, and what they say to each other to connect. See PROTOCOL.md."""
