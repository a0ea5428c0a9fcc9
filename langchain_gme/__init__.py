"""LangChain embeddings over st_modules; nothing is public yet."""
