"""A coordinator's network: its home, its SuperLink, its grid."""
