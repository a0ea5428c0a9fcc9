"""A model behind other libraries' interfaces."""
