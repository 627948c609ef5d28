"""Tables: one row a patient, from CSV or Parquet, into sites' columns of numbers; every oddity counted and said."""
