"""Estimators of another package, for tests of the plug-in point."""
