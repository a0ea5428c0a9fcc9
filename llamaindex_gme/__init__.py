"""LlamaIndex embeddings, node parser, readers, retriever and reranker for text, images and text+image in one space."""

from st_modules import MissingExtraError

try:
    from llamaindex_gme.embeddings import GMEEmbedding
    from llamaindex_gme.index_retriever import IndexRetriever
    from llamaindex_gme.nodes import identify_images
    from llamaindex_gme.parser import MultimodalNodeParser
    from llamaindex_gme.readers import multimodal_readers
    from llamaindex_gme.rerank import MultimodalRerank
    from llamaindex_gme.retriever import MultimodalVectorIndexRetriever
except ModuleNotFoundError as error:
    if (error.name or "").startswith("llama_index"):
        raise MissingExtraError('This needs llama-index-core: pip install "st-modules[llamaindex]"') from error
    raise

__all__ = [
    "GMEEmbedding",
    "IndexRetriever",
    "MultimodalNodeParser",
    "MultimodalRerank",
    "MultimodalVectorIndexRetriever",
    "identify_images",
    "multimodal_readers",
]
