"""LangChain embeddings, stores, retriever, filters and reranker for text, images and text+image in one space."""

from st_modules import MissingExtraError

try:
    from langchain_gme.adding import aadd_multimodal, add_multimodal
    from langchain_gme.content_blocks import to_content_blocks
    from langchain_gme.embeddings import GMEEmbeddings
    from langchain_gme.filters import MultimodalFilter, MultimodalRedundantFilter
    from langchain_gme.identify import identify_images
    from langchain_gme.index_retriever import IndexRetriever
    from langchain_gme.reranker import MultimodalReranker
    from langchain_gme.stores import MultimodalRetriever, MultimodalStore
except ModuleNotFoundError as error:
    if (error.name or "").startswith("langchain_core"):
        raise MissingExtraError('This needs langchain-core: pip install "st-modules[langchain]"') from error
    raise

__all__ = [
    "GMEEmbeddings",
    "IndexRetriever",
    "MultimodalFilter",
    "MultimodalRedundantFilter",
    "MultimodalReranker",
    "MultimodalRetriever",
    "MultimodalStore",
    "aadd_multimodal",
    "add_multimodal",
    "identify_images",
    "to_content_blocks",
]
