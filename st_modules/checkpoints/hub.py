"""The Hugging Face Hub: whether it is there to be asked, before its client asks again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError

# Seconds to connect, to read, to write, and to wait for a connection.
_TIMEOUTS = (4.0, 1.0, 1.0, 1.0)
# httpx or httpx2, whichever the client uses, calls them so.
_UNREACHABLE = frozenset({"ConnectError", "ConnectTimeout"})
_FILES = ("modules.json", "config.json", "adapter_config.json", "config_sentence_transformers.json")


def is_repo_id(name: str) -> bool:
    """Whether a repository of the Hub could have this name; the Hub is not asked."""
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def find_obstacle() -> str | None:
    """Return why the Hub cannot be reached; ``None`` where it can, or where it is not to be asked.

    The Hub's client waits 23 seconds for each file where there is no network. This asks once, through the same client,
    so that its mirror and its proxies are asked; whatever answers, or is slow to, is there.
    """
    if huggingface_hub.is_offline_mode():
        return None
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_TIMEOUTS)
    except Exception as error:
        if _UNREACHABLE.isdisjoint(each.__name__ for each in type(error).__mro__):
            return None
        return f"{constants.ENDPOINT}: {error}"
    return None


def has_snapshot(repo_id: str, revision: str | None, patterns: Sequence[str], cache_folder: str | None) -> bool:
    """Whether files of a repository are in the download cache."""
    try:
        huggingface_hub.snapshot_download(
            repo_id, revision=revision, allow_patterns=list(patterns), cache_dir=cache_folder, local_files_only=True
        )
    except (OSError, ValueError):
        return False
    return True


def refuse_unreachable(name: str, kwargs: dict[str, Any], cache_folder: str | None) -> None:
    """Raise what sentence-transformers would in the end, for a name that it would look for on the Hub.

    Args:
        name: What is no folder.
        kwargs: The arguments of ``sentence_transformers.SentenceTransformer``.
        cache_folder: The download cache.

    Raises:
        FileNotFoundError: No repository could have the name.
        OSError: Nothing of the repository is in the cache, and the Hub cannot be reached, or is not to be asked.
    """
    if not is_repo_id(name):
        raise FileNotFoundError(f"{name}: no such folder, and no repository can have this name.")
    names = [name] if "/" in name else [name, f"sentence-transformers/{name}"]
    cached = (
        huggingface_hub.try_to_load_from_cache(each, file, cache_dir=cache_folder, revision=kwargs.get("revision"))
        for each in names
        for file in _FILES
    )
    if any(found is not None for found in cached):
        return
    if kwargs.get("local_files_only") or huggingface_hub.is_offline_mode():
        raise OSError(
            f"{name}: no such folder, not in the download cache, and the Hub is not asked (local_files_only or "
            "HF_HUB_OFFLINE). Allow it, or pass a local folder of its files."
        )
    if obstacle := find_obstacle():
        raise OSError(
            f"{name}: no such folder, not in the download cache, and the Hub cannot be reached ({obstacle}). On a "
            "machine without network, pass a local folder of its files."
        )
