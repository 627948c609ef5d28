"""Preprocessed samples on disk, and the exams that they are made of."""
