"""A hospital: cohort store, ingest, site agent, trainer, guard. Knows nothing about other sites."""
