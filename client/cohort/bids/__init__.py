"""BIDS folders: participants, sessions, ages."""
