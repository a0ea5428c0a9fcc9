"""A question about a PDF: its pages are found by how they look and what they say, and handed to a chat model.

Run it with ``python examples/langchain_rag.py``; it needs no network. The chat model is LangChain's own stand-in.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from pages import read_pdf, write_pdf

from langchain_gme import GMEEmbeddings, MultimodalRetriever, add_multimodal, to_content_blocks

MODEL = "tiny"  # the one line to change: "gme-2b" for real documents
QUESTION = "three small green stars at the top on a white background"


def load_pages(pdf: Path, folder: Path) -> list[Document]:
    """Every page as a document: its text, and in the metadata its number and the path of its picture."""
    documents = []
    for page in read_pdf(pdf):
        path = folder / f"page-{page.number}.png"
        page.image.save(path)
        documents.append(Document(page.text, metadata={"image": str(path), "page": page.number}))
    return documents


def to_messages(found: dict) -> list[HumanMessage]:
    """What the chat model reads: the question, then the text and the picture of every page that was found."""
    pages = [
        Document(f"Page {page.metadata['page']}: {page.page_content}", metadata=page.metadata)
        for page in found["pages"]
    ]
    question = {"type": "text", "text": f"Answer from these pages: {found['question']}"}
    return [HumanMessage([question, *to_content_blocks(pages)])]


def make_chain(documents: list[Document], chat_model: BaseChatModel) -> Runnable:
    store = InMemoryVectorStore(GMEEmbeddings(model=MODEL))
    add_multimodal(store, documents)
    retriever = MultimodalRetriever(vectorstore=store, search_kwargs={"k": 1})
    found = {"question": RunnablePassthrough(), "pages": retriever}
    return found | RunnableLambda(to_messages) | chat_model | StrOutputParser()


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_pdf(folder / "report.pdf")
        chat_model = FakeListChatModel(responses=["(what a real chat model says about the page)"])
        print(make_chain(load_pages(folder / "report.pdf", folder), chat_model).invoke(QUESTION))


if __name__ == "__main__":
    main()
