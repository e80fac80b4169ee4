"""The run directory: distilled images, their records and what made them; its check, preview and lock file."""
