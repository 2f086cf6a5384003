"""SAM with adapters: the original parameter names and numbers, computed in fewer operations."""
