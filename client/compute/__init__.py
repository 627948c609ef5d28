"""Training, prediction and the sums: arrays in, arrays out."""
