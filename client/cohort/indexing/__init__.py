"""Bringing a store up to date with a site's folders."""
