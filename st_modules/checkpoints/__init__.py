"""Where a model's files are, and how its weights and adapters are read."""
