"""Conducting a run: phases, rounds, strategies, analyses."""
