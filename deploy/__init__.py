"""Getting it onto machines: the command line, certificates, the demo and its phantoms."""
