"""Where work is done: in this process, or by workers of a Ray cluster."""
