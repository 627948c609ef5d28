"""What a model on tables needs of all sites before it can exist."""
