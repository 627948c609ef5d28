"""A campaign: phases, aggregation, results, report. Knows nothing about a patient."""
