"""The connectivity zone: SuperNode and relay. No image, no table, no database."""
