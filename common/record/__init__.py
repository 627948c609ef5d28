"""The record of a run, `results.json`, as typed parts. Reading and writing the file is the server's."""
