"""What users write in TOML, as strict models. Imports no other part but errors and tables."""
