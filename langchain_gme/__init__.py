"""LangChain embeddings, retriever and store helper for text, images and text+image in one space."""

from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.retriever import MultimodalRetriever
from langchain_gme.stores import aadd_multimodal, add_multimodal

__all__ = ["GMEEmbeddings", "MultimodalRetriever", "aadd_multimodal", "add_multimodal"]
