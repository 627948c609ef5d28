"""Building blocks of the estimators' networks: modules of torch, one architecture a file."""
