"""Accounts of what a site has answered, by data set and coordinator; each has a limit."""
