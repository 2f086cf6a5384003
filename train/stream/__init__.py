"""The stream: from a dataset's shards, near or far, to batches in an order that is pure arithmetic."""
