"""Stages: pure functions from arrays to arrays and measures; they know no files and no sources."""
