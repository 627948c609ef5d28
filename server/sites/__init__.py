"""Asking the sites: requests, replies, who takes part."""
