"""A hospital's own store of its patients, exams and images: read from files, kept by keyed hash, never sent."""
