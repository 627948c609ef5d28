"""A site's home folder, its SQLite files, and cancellation: what every other room here may use."""
