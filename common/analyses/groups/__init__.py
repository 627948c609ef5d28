"""Two groups of patients compared by their predicted age difference."""
