"""Colloque: the video core of medical teleconsultation."""

__version__ = "0.1.0"
