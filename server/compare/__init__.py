"""Runs laid side by side: what each found, and what of it can be compared."""
