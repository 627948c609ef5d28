"""A bundle on a site's own exams: predicted ages into a file that stays where it is written."""
