"""What the models' authors run, put together from stock transformers classes: opponents, and expected vectors."""
