"""One epoch on any iterable of batches."""
