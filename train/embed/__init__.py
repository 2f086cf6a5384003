"""Image embeddings, computed once: written as shards beside a dataset, read by key."""
