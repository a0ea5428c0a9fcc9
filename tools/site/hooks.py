"""What mkdocs does besides: pages that are no files of docs/, links that hold on GitHub too, and a check."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebooks import to_markdown
from outside import find_outside
from reference import PACKAGES, ROOT, write_page

REPOSITORY = "https://github.com/st-modules/st-modules"

# Pages of the site that are kept elsewhere in the repository.
INCLUDED = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "models/tiny.md": "st_modules/assets/tiny/README.md",
}
_CODE = re.compile(r"`[^`\n]+`")
# A file's path, from the page or in the repository on GitHub.
_LINK = re.compile(rf"(?<=\]\()(?:({REPOSITORY}/(?:blob|tree)/main/)|(?!\w+:|#))([^)#\s]+)(?=[)#])")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the included pages and those of the API, and make pages of notebooks."""
    for uri, path in INCLUDED.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    for file in [each for each in files if each.src_uri.endswith(".ipynb")]:
        files.remove(file)
        uri = file.src_uri.removesuffix("ipynb") + "md"
        files.append(File.generated(config, uri, abs_src_path=str(file.abs_src_path)))
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=write_page(package)))
    return files


def on_page_read_source(*, page: Page, **_: Any) -> str | None:
    """Read a notebook as Markdown; mkdocs reads the other pages itself."""
    path = Path(page.file.abs_src_path or "")
    return to_markdown(path.read_text(encoding="utf-8")) if path.suffix == ".ipynb" else None


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """Turn links between files of the repository into links between pages or to GitHub, and mend its tables' code."""
    if page.file.abs_src_path is None:
        return markdown
    uris = {os.path.realpath(file.abs_src_path): file.src_uri for file in files if file.abs_src_path}
    folder = Path(page.file.abs_src_path).parent

    def lead(link: re.Match[str]) -> str:
        target = ((ROOT if link[1] else folder) / link[2]).resolve()
        if str(target) in uris:
            return os.path.relpath(uris[str(target)], Path(page.file.src_uri).parent)
        if target.exists() and target.is_relative_to(ROOT):
            return f"{REPOSITORY}/{'tree' if target.is_dir() else 'blob'}/main/{target.relative_to(ROOT).as_posix()}"
        return link[0]

    def mend(line: str) -> str:
        # On GitHub a bar in a cell is written with a backslash, in code too; here the backslash would be seen.
        return _CODE.sub(lambda code: code[0].replace(r"\|", "|"), line) if line.startswith("|") else line

    return "\n".join(map(mend, _LINK.sub(lead, markdown).split("\n")))


def on_post_build(*, config: MkDocsConfig) -> None:
    """Fail where a built page loads anything from elsewhere."""
    if found := find_outside(Path(config.site_dir)):
        raise PluginError("These pages load something from elsewhere:\n" + "\n".join(found))
