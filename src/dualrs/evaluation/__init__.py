"""From data to certificates in a file: runs, metrics, pictures."""
