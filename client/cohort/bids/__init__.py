"""BIDS folders: who took part, in which session, how old."""
