"""Losses that several estimators share; imported inside functions only, as they need torch."""
