"""One call of ``encode``: which rows are embedded, in which batches, and in which order they come back."""
