"""The site's policy: what it allows, parsed strictly, decided in one place."""
