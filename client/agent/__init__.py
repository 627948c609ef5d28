"""The site agent: its wire, its service, and what keeps it and the SuperNode running."""
