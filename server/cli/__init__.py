"""The commands of a coordinator: `fedage coordinator …`, `fedage campaign …`."""
