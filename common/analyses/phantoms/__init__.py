"""Phantoms only: what a run found beside what the truth planted in them implies."""
