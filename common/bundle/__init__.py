"""A trained model as one signed file: its description, its bytes, and whether it fits the estimator installed here."""
