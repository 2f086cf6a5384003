"""Whether a source says what its files are: what a contributor runs before sending it."""
