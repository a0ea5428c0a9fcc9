"""Chat models by the name that a command line has for them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from st_modules._imports import require
from st_modules.errors import InputError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


def import_chat_model(name: str) -> BaseChatModel:
    """Import a chat model.

    Args:
        name: ``MODULE:NAME``, where the module is in the current folder or installed, and the name is a chat model of
            LangChain's, or something that makes one when it is called without arguments.

    Raises:
        InputError: There is no such thing, or it is no chat model.
        MissingExtraError: langchain-core is not installed.
    """
    require("langchain_core", extra="megapairs")
    from langchain_core.language_models import BaseChatModel

    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"{name!r}: write MODULE:NAME, as in my_models:model.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise InputError(f"{name}: the module cannot be imported: {error}") from error
    except AttributeError as error:
        raise InputError(f"{name}: the module has no {attribute!r}.") from error
    model = found() if not isinstance(found, BaseChatModel) and callable(found) else found
    if not isinstance(model, BaseChatModel):
        raise InputError(f"{name}: of type {type(model).__name__}; a LangChain chat model is needed.")
    return model
