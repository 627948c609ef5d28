"""A simulated run held against the same models fitted on one table of all patients, by other people's code."""
