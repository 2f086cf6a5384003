"""Facts, no code: sources, ontology, lineage, named queries, embedded images."""
