"""The page at ``/`` and its files, which answer without a key: they have nothing of the model or the index in them."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from st_modules.serve.problems import Problem

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Pictures that the page has in memory are blobs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FOLDER = Path(__file__).parents[1] / "page"
_FILES = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in _FOLDER.iterdir()}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show_page() -> Response:
    """Show the page."""
    return await show_file("index.html")


@router.get("/page/{name}")
async def show_file(name: str) -> Response:
    """Show one of its files."""
    if name not in _FILES:
        raise Problem("path", "The page has no such file.")
    content, kind = _FILES[name]
    return Response(content, media_type=kind, headers=_HEADERS)
