"""The analyses: one additive statistic each, its local sums and what comes out of their total."""
