"""A campaign's patients and their parts: training, validation, test, folds."""
