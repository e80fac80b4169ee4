"""The command line. Each command builds a configuration, imports its workflow, calls it and prints the result."""
