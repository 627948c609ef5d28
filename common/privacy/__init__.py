"""Differential privacy without transport: mechanisms, what they cost, and noise that only a secret can repeat."""
