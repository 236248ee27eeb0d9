"""From the cache and from pictures to batches."""
