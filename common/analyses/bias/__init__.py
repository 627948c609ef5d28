"""How the predicted age difference depends on age, and its correction."""
