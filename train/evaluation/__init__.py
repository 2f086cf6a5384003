"""Scores of a model on a dataset, as SAM-Med2D and MedSAM took them: masks, volumes, tables, a picture."""
