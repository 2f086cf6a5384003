"""Procedures, no code: every file here decides the bytes of a dataset or of a training run."""
