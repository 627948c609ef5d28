"""An estimator that cannot be imported."""

raise RuntimeError("a mistake in somebody else's package")
