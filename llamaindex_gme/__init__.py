"""LlamaIndex embeddings and retriever for text, images and text+image in one space."""

from llamaindex_gme.embeddings import GMEEmbedding
from llamaindex_gme.nodes import identify_images
from llamaindex_gme.retriever import MultimodalVectorIndexRetriever

__all__ = ["GMEEmbedding", "MultimodalVectorIndexRetriever", "identify_images"]
