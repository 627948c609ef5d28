"""Keeps a site's processes running, and says how they are."""
