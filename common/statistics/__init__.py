"""Additive statistics, the columns of a cohort, disclosure arithmetic."""
