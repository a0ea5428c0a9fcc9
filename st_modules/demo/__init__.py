"""The demonstration world: drawn pictures with captions, and how well a model retrieves them."""
