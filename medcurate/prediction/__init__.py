"""Prediction from files: read as a dataset build reads them, written with their geometry."""
