"""The APIs, a module each."""
