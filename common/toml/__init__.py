"""TOML text to a typed model, or every mistake in it at once."""
