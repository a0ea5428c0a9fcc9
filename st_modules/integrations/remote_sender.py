"""From a body of items to their vectors: it is sent, in halves where it is too much, and the answer is read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from st_modules.errors import InputError, shorten
from st_modules.inputs.items import Item
from st_modules.integrations.remote_bodies import Bodies, Body
from st_modules.integrations.remote_model import ServedModel
from st_modules.integrations.remote_server import SLOW, Answer, RemoteServer

# Of an answer, beside the vectors: around each, and around all.
_BYTES_A_VECTOR, _BYTES_AROUND = 256, 64 * 1024
_TOO_LARGE = frozenset({413, 422})

Embedding: TypeAlias = "Generator[Body, Answer, Embedded]"
"""What embeds a body: it yields bodies to be sent, is sent the answers to them, and returns the vectors."""


@dataclass(frozen=True)
class Embedded:
    """Vectors, float32 of shape (items, dimensions), and how many of the items lost the end of their text."""

    vectors: np.ndarray
    truncated: int

    def join(self, other: Embedded) -> Embedded:
        """Return these and those that follow them."""
        return Embedded(np.concatenate([self.vectors, other.vectors]), self.truncated + other.truncated)


class Sender:
    """Sends bodies to a server, and reads its answers.

    Args:
        server: The server.
        model: What it says of its model.
    """

    def __init__(self, server: RemoteServer, model: ServedModel) -> None:
        self._server = server
        self._model = model

    def send(self, body: Body, bodies: Bodies) -> Embedded:
        """Send a body, and return the vectors of its items.

        Args:
            body: The body.
            bodies: Those that are still to come; they get smaller where this one is too much for the server.

        Raises:
            InputError: An item cannot be embedded.
            ServerError: The server cannot be reached, or fails.
        """
        embedding = self._embed_body(body, bodies)
        answer: Any = None
        while True:
            try:
                body = embedding.send(answer)
            except StopIteration as done:
                return done.value
            answer = self._server.post(*self._request(body), repeat_slow=len(body.items) == 1)

    async def asend(self, body: Body, bodies: Bodies, run: Callable[..., Any]) -> Embedded:
        """Send a body without blocking the event loop; see :meth:`send`.

        Args:
            body: The body.
            bodies: Those that are still to come.
            run: Runs a function with its arguments, in a thread or here, and is awaited.
        """
        embedding = self._embed_body(body, bodies)

        def advance(answer: Any) -> Body | Embedded:
            try:
                return embedding.send(answer)
            except StopIteration as done:
                return done.value

        answer: Any = None
        while not isinstance(step := await run(advance, answer), Embedded):
            answer = await self._server.apost(*self._request(step), repeat_slow=len(step.items) == 1)
        return step

    def _embed_body(self, body: Body, bodies: Bodies) -> Embedding:
        """Embed a body, in halves where it is too much for the server; those that are still to come are smaller then.

        Raises:
            InputError: An item cannot be embedded.
            ServerError: The server fails.
        """
        answer = yield body
        if answer.status == 200:
            return self._read(answer, len(body.items))
        if answer.status in _TOO_LARGE or answer.status == SLOW:
            if len(body.items) > 1:
                bodies.most_items = min(bodies.most_items, -(-len(body.items) // 2))
                first, second = body.halve()
                return (yield from self._embed_body(first, bodies)).join((yield from self._embed_body(second, bodies)))
            if answer.status in _TOO_LARGE:
                raise InputError(f"too much for the server: {answer.message}", body.items[0].place)
        if answer.status == 400 and (number := _find_blamed(answer, len(body.items))) is not None:
            raise _as_error_here(answer, number, body.items[number])
        raise self._server.explain(answer)

    def _request(self, body: Body) -> tuple[str, bytes, int]:
        most = len(body.items) * (self._model.dimension * 16 // 3 + _BYTES_A_VECTOR) + _BYTES_AROUND
        return "/v1/embeddings", body.content, most

    def _read(self, answer: Answer, count: int) -> Embedded:
        found, model = answer.read(), self._model
        try:
            if (found["model"], found["fingerprint"]) != (model.name, model.fingerprint):
                which = "other weights" if found["model"] == model.name else f"the model {shorten(found['model'])}"
                raise self._server.fail(
                    f"it has {which} now, and had {model.name!r}; connect anew, and embed everything by one model."
                )
            vectors = np.full((count, model.dimension), np.nan, dtype=np.float32)
            for each in found["data"]:
                vector = np.frombuffer(base64.b64decode(each["embedding"], validate=True), "<f4")
                vectors[each["index"]] = vector.reshape(model.dimension)
            embedded = Embedded(vectors, int(found["truncated"]))
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise self._server.fail("its answer has no embeddings as st-modules serve has them.") from error
        if not np.isfinite(vectors).all():
            raise self._server.fail(f"its answer has not {count} whole embeddings.")
        return embedded


def _find_blamed(answer: Answer, count: int) -> int | None:
    """Return the number of the item that an error is about, of as many as were sent."""
    blamed = answer.error.get("param")
    return next((number for number in range(count) if blamed == f"input[{number}]"), None)


def _as_error_here(answer: Answer, number: int, item: Item) -> InputError:
    """Return the error about an item, in the words in which a model in this process would say it."""
    try:
        for source in (*item.images, *(item.video.sources if item.video and not item.video.is_file else ())):
            source.load()
    except InputError as error:
        return error
    if answer.message.startswith("data URI "):  # as which it was sent
        return InputError(f"too much for the server: {answer.message.partition('characters): ')[2]}", item.place)
    head, _, problem = answer.message.partition(": ")
    part = head.removeprefix(f"item {number}").removeprefix(", ")
    return InputError(problem, item.place.within(part) if part else item.place)
