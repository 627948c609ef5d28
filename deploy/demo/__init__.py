"""The demo: hospitals of phantoms, a truth planted in them, and the commands their people would type."""
