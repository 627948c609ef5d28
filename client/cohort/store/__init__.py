"""The cohort store: one SQLite file, one key."""
