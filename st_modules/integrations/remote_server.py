"""A server as a client reaches it: one address, a key, repeated tries, and answers of bounded size and time."""

from __future__ import annotations

import asyncio
import json
import os
import time
import weakref
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity

from st_modules.arguments import check_integer, check_seconds
from st_modules.errors import ArgumentError, ServerError, in_one_line, printable, shorten

_CONNECT_SECONDS = 10.0
_LONGEST_WAIT = 60.0
_ERROR_BYTES = 64 * 1024
_BUSY = frozenset({429, 502, 503})
SLOW = 504
"""The status of a request that took the server too long."""

_backoff = tenacity.wait_exponential(multiplier=0.5, max=8.0) + tenacity.wait_random(0.0, 0.5)


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes:
        status: The HTTP status.
        body: What was sent with it.
        retry_after: For how many seconds the server wants to be left alone; ``None`` where it does not say.
    """

    status: int
    body: bytes
    retry_after: float | None = None

    def read(self) -> Any:
        """Return the body's JSON, and ``None`` where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def error(self) -> Mapping[str, Any]:
        """What the server says of an error; empty where it is no server of ours."""
        found = self.read()
        error = found.get("error") if isinstance(found, dict) else None
        return error if isinstance(error, dict) else {}

    @property
    def message(self) -> str:
        """What is wrong, in the server's words where it has any."""
        said = self.error.get("message")
        return printable(said) if isinstance(said, str) and said else f"HTTP {self.status}"


class RemoteServer:
    """An st-modules server, by HTTP. It serves any number of threads, event loops, and processes that are forked off.

    Redirects are not followed: the key goes to the one address that was named. Proxies are those of the environment.

    Args:
        base_url: Its address, with or without a ``/v1`` at the end.
        api_key: The key that it asks for; ``None`` where it asks for none.
        timeout: Seconds that it may take to answer.
        max_retries: How often a request is repeated where the server cannot be reached or is busy.

    Raises:
        ArgumentError: An argument has a value that it cannot have.
    """

    def __init__(self, base_url: str, api_key: str | None, timeout: float, max_retries: int) -> None:
        check_seconds("timeout", timeout)
        check_integer("max_retries", max_retries, least=0)
        self.url = _normalise(base_url)
        self._api_key = api_key = api_key if api_key is None else api_key.strip()
        self._timeout = timeout
        self._max_retries = max_retries
        self._settings: dict[str, Any] = {
            "headers": _headers(api_key),
            # Whoever waits for a free connection waits for the requests of others, which end.
            "timeout": httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS), pool=None),
            "verify": httpx.create_ssl_context(),
            "follow_redirects": False,
        }
        self._client, self._process = self._connect(), os.getpid()
        self._shared: dict[asyncio.AbstractEventLoop, _Shared] = {}

    def get(self, path: str, most: int) -> Answer:
        """Ask for a path; see :meth:`post`."""
        return self._retry(tenacity.Retrying, _BUSY | {SLOW})(self._send, "GET", path, None, most)

    def post(self, path: str, content: bytes, most: int, *, repeat_slow: bool) -> Answer:
        """Send a body.

        Args:
            path: Where to.
            content: The body, JSON.
            most: Most bytes of an answer that is no error.
            repeat_slow: Whether a request that took too long is repeated.

        Returns:
            The answer, whatever its status is; of a request that was repeated, the last.

        Raises:
            ServerError: The server cannot be reached, or its answer is too long.
        """
        statuses = _BUSY | {SLOW} if repeat_slow else _BUSY
        return self._retry(tenacity.Retrying, statuses)(self._send, "POST", path, content, most)

    async def apost(self, path: str, content: bytes, most: int, *, repeat_slow: bool) -> Answer:
        """Send a body without blocking the event loop; see :meth:`post`."""
        statuses = _BUSY | {SLOW} if repeat_slow else _BUSY
        return await self._retry(tenacity.AsyncRetrying, statuses)(self._asend, "POST", path, content, most)

    def fail(self, problem: str) -> ServerError:
        """Return an error that names the server, and never has the key."""
        return ServerError(f"{self.url}: {problem}".replace(self._api_key or "\0", "***"))

    def explain(self, answer: Answer) -> ServerError:
        """Return the error that an answer of another status than 200 is, where no input is to blame."""
        if answer.status in (401, 403):
            key = "the key is not the server's" if self._api_key else "the server asks for a key"
            return self.fail(f"{key}; pass its own as api_key.")
        if 300 <= answer.status < 400:
            return self.fail(f"it redirects (HTTP {answer.status}), which is not followed; pass the server's own URL.")
        return self.fail(f"{answer.message} (HTTP {answer.status})" if answer.error else answer.message)

    def _connect(self) -> httpx.Client:
        client = httpx.Client(**self._settings)
        weakref.finalize(self, client.close)
        return client

    def _retry(self, kind: Any, statuses: Collection[int]) -> Any:
        return kind(
            stop=tenacity.stop_after_attempt(self._max_retries + 1),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(httpx.TransportError)
            | tenacity.retry_if_result(lambda answer: answer.status in statuses),
            retry_error_callback=self._give_up,
        )

    def _give_up(self, state: tenacity.RetryCallState) -> Answer:
        assert state.outcome is not None
        error = state.outcome.exception()
        if error is None:
            return state.outcome.result()
        tries = f" after {state.attempt_number} tries" if state.attempt_number > 1 else ""
        raise self.fail(f"the server cannot be reached{tries} ({in_one_line(error)}).") from error

    def _send(self, method: str, path: str, content: bytes | None, most: int) -> Answer:
        if self._process != os.getpid():  # the connections are the parent's
            self._client, self._process = self._connect(), os.getpid()
        try:
            with self._client.stream(method, self.url + path, content=content) as response:
                body = self._begin(response, most)
                for chunk in response.iter_raw():
                    body.add(chunk)
                return body.finish()
        except httpx.ReadTimeout as error:
            raise self._too_slow() from error

    async def _asend(self, method: str, path: str, content: bytes | None, most: int) -> Answer:
        try:
            async with (
                self._share_client() as client,
                client.stream(method, self.url + path, content=content) as response,
            ):
                body = self._begin(response, most)
                async for chunk in response.aiter_raw():
                    body.add(chunk)
                return body.finish()
        except httpx.ReadTimeout as error:
            raise self._too_slow() from error

    @asynccontextmanager
    async def _share_client(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        """Yield the client that the requests share which are under way in an event loop.

        The last of them closes it: a loop may end without a word, and nothing closes what is left of it then.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._shared:
            self._shared[loop] = _Shared(httpx.AsyncClient(**self._settings))
        shared = self._shared[loop]
        shared.users += 1
        try:
            yield shared.client
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[loop]
                await shared.client.aclose()

    def _begin(self, response: httpx.Response, most: int) -> _Body:
        return _Body(self, response, most if response.status_code == 200 else _ERROR_BYTES, self._timeout)

    def _too_slow(self) -> ServerError:
        # Not repeated: a server that hangs would keep the call for many times as long.
        return self.fail(f"not answered within {self._timeout:g} s; raise timeout, or send fewer items at once.")


@dataclass
class _Shared:
    client: httpx.AsyncClient
    users: int = 0


class _Body:
    """The body of a response, which is read no further than a limit, and no longer."""

    def __init__(self, server: RemoteServer, response: httpx.Response, most: int, seconds: float) -> None:
        self._server = server
        self._response = response
        self._most = most
        self._deadline = time.monotonic() + seconds
        self._read = bytearray()

    def add(self, chunk: bytes) -> None:
        self._read += chunk
        if len(self._read) > self._most:
            raise self._server.fail(f"its answer is over {self._most} bytes, which no st-modules server sends.")
        if time.monotonic() > self._deadline:
            raise httpx.ReadTimeout("The answer is too slow.")

    def finish(self) -> Answer:
        said = self._response.headers.get("retry-after", "")
        seconds = float(said) if said.isdecimal() and len(said) < 10 else None
        return Answer(self._response.status_code, bytes(self._read), seconds)


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the seconds to wait before another try: more each time, and no less than the server asks for."""
    outcome = state.outcome
    answer = outcome.result() if outcome and not outcome.failed else None
    return max(_backoff(state), min(answer.retry_after or 0.0, _LONGEST_WAIT) if answer else 0.0)


def _headers(api_key: str | None) -> dict[str, str | bytes]:
    headers: dict[str, str | bytes] = {
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "st-modules",
    }
    if api_key is not None:
        if not api_key or not api_key.isprintable():
            raise ArgumentError("api_key is empty, or has characters that no header has.")
        headers["Authorization"] = f"Bearer {api_key}".encode()
    return headers


def _normalise(base_url: object) -> str:
    """Return the address of a server without a slash or ``/v1`` at its end."""
    url = base_url.strip() if isinstance(base_url, str) else ""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        usable = usable and url.isprintable() and " " not in url
        _ = parts.port
    except ValueError:
        parts, usable = urlsplit(""), False
    if parts.username is not None or parts.password is not None:
        raise ArgumentError("base_url has a user name or a password in it; leave it out, and pass the key as api_key.")
    if not usable:
        raise ArgumentError(f"base_url={shorten(base_url)}: pass the server's address, as http://127.0.0.1:8000.")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
