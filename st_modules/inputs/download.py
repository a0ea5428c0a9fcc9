"""Fetching one image over http(s): public addresses only, within limits of size, time and redirects.

The standard library's client works on a socket that is connected here, so that the address that was checked is the
address that is talked to. Proxies of the environment are not used: a proxy would look the name up again, unchecked.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from st_modules.errors import ImageError
from st_modules.inputs.limits import ImageLimits

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BLOCK = 64 * 1024  # bytes read at a time
_LONGEST_URL = 65_536  # as long as a line of what the standard library's client reads
_LONGEST_HOST = 253  # a name in the DNS; what turns one into ASCII takes seconds for a hundred thousand characters
_LONGEST_SHOWN = 100
_URL_PUNCTUATION = "%/:=&?~#+!$,;'@()*[]"

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Every range of IANA's registries of special-purpose addresses, whichever of them a release of Python knows:
# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry. A cloud's metadata service
# lives in one, others are tunnels to an address that the name's owner chooses. Besides them Azure's host service,
# multicast, and what IPv6 once had for sites.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32"),
        *("2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)


def download(url: str, limits: ImageLimits) -> bytes:
    """Return the body that ``url`` answers with, after its redirects.

    Raises:
        ImageError: Fetching is off, the URL or an address on the way is not allowed, a limit is exceeded, or the
            server does not deliver. The message does not name ``url``: the caller knows it.
    """
    if not limits.remote_images:
        raise ImageError(
            'fetching is turned off (remote_images=False); pass the image itself, or {"text": ...} if this is text'
        )
    clock = _Clock(limits)
    for _ in range(limits.max_redirects + 1):
        try:
            body, location = _get(_check_url(url), clock, limits)
            if location is None:
                return body
            url = _redirect(url, location)
        except ImageError:
            raise
        except TimeoutError as error:
            raise ImageError("the server did not answer in time; try again or raise the timeouts") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ImageError(f"fetching failed ({_show(error) or type(error).__name__}); check the URL") from error
    raise ImageError(f"more than {limits.max_redirects} redirects; pass the final URL or raise max_redirects")


def is_public(address: str) -> bool:
    """Whether an IP address is of the public internet: not local, shared, reserved, multicast or for a purpose."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return ip.is_global and not any(ip in network for network in _NOT_PUBLIC)


def _check_url(url: str) -> SplitResult:
    if len(url) > _LONGEST_URL:
        raise ImageError(f"a URL of {len(url)} characters, and at most {_LONGEST_URL} are sent; correct it")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ImageError(
            f"{_show(parts.scheme)}:// is not fetched; use http or https, or download it and pass the path"
        )
    if "@" in parts.netloc:
        raise ImageError("a user name or password in the URL is not sent; download the image and pass its bytes")
    if not parts.hostname:
        raise ImageError("the URL names no host; correct it")
    if len(parts.hostname) > _LONGEST_HOST:
        raise ImageError(
            f"a host of {len(parts.hostname)} characters, and no name has over {_LONGEST_HOST}; correct it"
        )
    return parts


def _redirect(url: str, location: str) -> str:
    target = urljoin(url, quote(location, safe=_URL_PUNCTUATION, encoding="latin-1"))
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        raise ImageError(
            "redirected from https to http, where anyone may swap the image; pass a URL that stays on https"
        )
    return target


def _get(parts: SplitResult, clock: _Clock, limits: ImageLimits) -> tuple[bytes, str | None]:
    """One request: its body, or the place that it redirects to."""
    host = _ascii_host(parts.hostname or "")
    with _connect(host, parts, clock, limits) as sock:
        connection = http.client.HTTPConnection(host, parts.port or 80)  # never connects: it is given its socket
        connection.sock = _TimedSocket(sock, clock)
        connection.request("GET", _target(parts), headers=_headers(host, parts.port))
        response = connection.getresponse()
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return b"", location
        return _read(response, limits.max_bytes), None


def _ascii_host(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _target(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe=_URL_PUNCTUATION)
    return f"{path}?{quote(parts.query, safe=_URL_PUNCTUATION)}" if parts.query else path


def _headers(host: str, port: int | None) -> dict[str, str]:
    name = f"[{host}]" if ":" in host else host
    return {"Host": name if port is None else f"{name}:{port}", "User-Agent": "st-modules", "Connection": "close"}


def _connect(host: str, parts: SplitResult, clock: _Clock, limits: ImageLimits) -> socket.socket:
    """Look the host up once, check every address, and connect to one of these very addresses."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not limits.allow_private_hosts and not all(is_public(str(address[0])) for *_, address in found):
        raise ImageError(
            f"{host} is at an address that is not public; pass the image itself, or allow_private_hosts=True if you "
            "trust whoever chose the URL"
        )
    sock = _first_to_answer(found, clock, limits)
    if parts.scheme == "http":
        return sock
    try:
        sock.settimeout(clock.next_timeout(limits.connect_timeout))
        return ssl.create_default_context().wrap_socket(sock, server_hostname=host)
    except Exception:
        sock.close()
        raise


def _first_to_answer(found: list[Any], clock: _Clock, limits: ImageLimits) -> socket.socket:
    failure = OSError("the host has no address")
    for family, kind, protocol, _, address in found:
        timeout = clock.next_timeout(limits.connect_timeout)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if response.status != HTTPStatus.OK:
        raise ImageError(f"the server answered {response.status} {_show(response.reason)}; check the URL")
    encoding = response.getheader("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ImageError(
            f"the server compressed it ({_show(encoding)}) without being asked; download it and pass the path"
        )
    too_long = ImageError(f"the response is over the limit of {max_bytes} bytes; raise max_bytes")
    if response.length and response.length > max_bytes:
        raise too_long
    body = bytearray()
    while block := response.read(_BLOCK):
        body += block
        if len(body) > max_bytes:
            raise too_long
    if response.length:
        raise ImageError(f"the connection ended {response.length} bytes early; try again")
    return bytes(body)


def _show(said: object) -> str:
    """Return what a server or a URL says, short and printable."""
    text = str(said)[:_LONGEST_SHOWN]
    return "".join(character if character.isprintable() else "?" for character in text)


class _Clock:
    """The time that one fetch may take, all of its redirects together."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.total_timeout

    def next_timeout(self, longest: float | None = None) -> float:
        """Seconds that the next step may take: ``longest`` (by default the read timeout), or what is left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ImageError(f"not complete after {self._limits.total_timeout:g} s; raise total_timeout")
        return min(self._limits.read_timeout if longest is None else longest, left)


class _TimedSocket:
    """The part of a socket that http.client uses, every read and write of it within the time.

    A socket's own timeout begins anew with each byte, so a server that drips would hold the caller for ever.
    """

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._clock.next_timeout())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._clock))

    def close(self) -> None:
        """Leave the socket open: http.client closes it before it has read the answer."""


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._sock.settimeout(self._clock.next_timeout())
        return self._sock.recv_into(buffer)
