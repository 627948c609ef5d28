"""What tables, figures and sentences of a run are made of, for the terminal, the report and the comparison."""
