"""Files with versions and checksums: statistics and the run directory."""
