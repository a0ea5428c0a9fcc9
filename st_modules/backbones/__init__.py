"""One module per architecture: what a batch of items looks like to it, and how it is run and pooled."""
