"""The build: from a recipe to a dataset."""
