"""Live rooms: who is in them, who waits, who may do what to whom. Drives nothing; driven by `session.py`."""

from __future__ import annotations


class RoomRegistry:
    """Every room that somebody is connected to, by id."""
