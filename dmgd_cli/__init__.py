"""The command line: each command builds a configuration, calls its workflow and prints the result."""
