"""How far predicted ages are off."""
