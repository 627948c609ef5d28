"""The commands of a site: `fedage site …`."""
