"""What a server says of the model that it has, and of what a request may have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from st_modules.integrations.remote_server import RemoteServer

_MOST_BYTES = 4 * 2**20
_MOST_DIMENSIONS = 2**16


@dataclass(frozen=True)
class ServedModel:
    """What a server says of its model.

    Attributes:
        name: What the server calls it.
        dimension: How many dimensions its embeddings have.
        max_length: Its longest item in tokens.
        takes_video: Whether it embeds videos.
        prompts: Its instructions, by their names.
        instruction_sides: The sides on which it reads one.
        max_items: Most items of a request.
        max_body_bytes: Most bytes of one.
        fingerprint: Of the model's weights and settings.
    """

    name: str
    dimension: int
    max_length: int
    takes_video: bool
    prompts: Mapping[str, str]
    instruction_sides: Collection[str]
    max_items: int
    max_body_bytes: int
    fingerprint: str


def ask(server: RemoteServer) -> ServedModel:
    """Return what a server says of its model.

    Raises:
        ServerError: It cannot be reached, does not let us in, or is another server.
    """
    answer = server.get("/v1/models", _MOST_BYTES)
    if answer.status not in (200, 404):
        raise server.explain(answer)
    try:
        (model,) = answer.read()["data"]
        if model["owned_by"] != "st-modules":
            raise ValueError
        found = ServedModel(
            name=str(model["id"]),
            dimension=int(model["dimension"]),
            max_length=int(model["max_length"]),
            takes_video=bool(model["takes_video"]),
            prompts={str(name): str(prompt) for name, prompt in model["prompts"].items()},
            instruction_sides=frozenset(map(str, model["instruction_sides"])),
            max_items=int(model["max_items"]),
            max_body_bytes=int(model["max_body_bytes"]),
            fingerprint=str(model["fingerprint"]),
        )
        if not 0 < found.dimension <= _MOST_DIMENSIONS or found.max_items < 1 or found.max_body_bytes < 1:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise server.fail("no server of st-modules serve is there, or one of an older version.") from error
    return found
