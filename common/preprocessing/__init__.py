"""Images between the data zone and an estimator."""
