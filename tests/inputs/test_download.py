"""Fetching images: from loopback servers that behave, misbehave, or must never be asked."""

import itertools
import pickle
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from st_modules.errors import ImageError
from st_modules.inputs.download import is_public
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from tests.helpers.loopback import Handler, Server, png

LOCAL = ImageLimits(allow_private_hosts=True)
PUBLIC_ADDRESS = "93.184.215.14"

# An authority of these tests alone, and a server's certificate for images.test that it signed; valid until 2120.
AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBaDCCAQ+gAwIBAgIBATAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBBzdC1tb2R1
bGVzIHRlc3RzMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAbMRkw
FwYDVQQDDBBzdC1tb2R1bGVzIHRlc3RzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD
QgAEBFwrbmlTHeBc+8ySN5kavGlgOqwMdvPuOJjAnUGwoE4dPVzTefkYv3P3F1Bv
xewJWAs7FMLiCHVgCABoEYH1VKNCMEAwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8B
Af8EBAMCAQYwHQYDVR0OBBYEFAVQhroluHAeGccbw1VPnOg5BzBvMAoGCCqGSM49
BAMCA0cAMEQCIDBLjG+WFxVIXe0QfVbtjdKlKAcY4iJzcSJx8JPaoZQrAiB4BQNU
bmQ/4Lbup5oOySBRSAZnCbED3cS/tCOGv310kw==
-----END CERTIFICATE-----
"""
SERVER_KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgR+9gtwVFWUdaJ1rc
sIizzYY6rTcbhsWgkBbwjdWpeCihRANCAARSh34/jFiUuyP41MB2jPRU9t4kEV3i
GgFo/AaFq8qmNZ5887rnSpKBS3qdp+VVKvOQLpdL7K/sGo1xLQoEi/1p
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBsTCCAVegAwIBAgIBAjAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBBzdC1tb2R1
bGVzIHRlc3RzMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAWMRQw
EgYDVQQDDAtpbWFnZXMudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFKH
fj+MWJS7I/jUwHaM9FT23iQRXeIaAWj8BoWryqY1nnzzuudKkoFLep2n5VUq85Au
l0vsr+wajXEtCgSL/WmjgY4wgYswFgYDVR0RBA8wDYILaW1hZ2VzLnRlc3QwDAYD
VR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUHAwEw
HQYDVR0OBBYEFKAJixHb90B/pZtjiIPjp5siGr/mMB8GA1UdIwQYMBaAFAVQhrol
uHAeGccbw1VPnOg5BzBvMAoGCCqGSM49BAMCA0gAMEUCIHCNUzWDZElUIk8DSzWH
WEwhx1qVolr5Jf+eXIPBTJhSAiEA87krzbkd5WDy4ZnCw3CC6hRh/Ffiftm1t1aw
A31f3/Y=
-----END CERTIFICATE-----
"""


class Names:
    """Stands in for name resolution: answers in turn for every look-up, and remembers the names asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses connected to; the public one is answered by this machine, so that nothing leaves it."""
    addresses: list[str] = []
    connect = socket.socket.connect

    def record(self: socket.socket, address: tuple[str, int]) -> None:
        addresses.append(address[0])
        connect(self, ("127.0.0.1" if address[0] == PUBLIC_ADDRESS else address[0], address[1]))

    monkeypatch.setattr(socket.socket, "connect", record)
    return addresses


# What works


def test_an_image_is_fetched(server: Server) -> None:
    assert ImageSource(server.url(), limits=LOCAL).load().getpixel((3, 3)) == (255, 0, 0)


def test_size_and_pixels_take_one_request(server: Server) -> None:
    source = ImageSource(server.url(), limits=LOCAL)
    assert server.requests == []
    assert source.size == source.load().size == source.load().size == (7, 5)
    assert len(server.requests) == 1


def test_fetched_bytes_travel_with_a_pickle(server: Server) -> None:
    source = ImageSource(server.url(), limits=LOCAL)
    assert source.size == (7, 5)
    assert pickle.loads(pickle.dumps(source)).load().size == (7, 5)
    assert len(server.requests) == 1


def test_the_request_names_the_host_and_asks_for_no_compression(server: Server) -> None:
    ImageSource(server.url(), limits=LOCAL).load()
    (path, headers) = server.requests[0]
    assert (path, headers["Host"]) == ("/a.png", f"127.0.0.1:{server.server_port}")
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("st-modules")


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/a b.png", "/a%20b.png"),
        ("/%C3%A9.png?x=1&y=a%2Fb", "/%C3%A9.png?x=1&y=a%2Fb"),
        ("/\u00e9.png?q=\u00e9", "/%C3%A9.png?q=%C3%A9"),
        ("/a.png#part", "/a.png"),
        ("", "/"),
    ],
)
def test_paths_are_sent_as_a_browser_sends_them(server: Server, asked: str, sent: str) -> None:
    server.routes[sent] = lambda handler: handler.answer(png())
    assert ImageSource(server.url(asked), limits=LOCAL).size == (7, 5)


def test_a_name_beyond_ascii_is_looked_up_and_sent_in_its_ascii_form(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(["127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert ImageSource(server.url(host="b\u00fccher.test"), limits=LOCAL).size == (7, 5)
    assert names.asked == ["xn--bcher-kva.test"]
    assert server.requests[0][1]["Host"] == f"xn--bcher-kva.test:{server.server_port}"


def test_an_ipv6_address_may_be_the_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(["127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert ImageSource(server.url(host="[2606:4700::abcd]"), limits=LOCAL).size == (7, 5)
    assert names.asked == ["2606:4700::abcd"]
    assert server.requests[0][1]["Host"] == f"[2606:4700::abcd]:{server.server_port}"


def test_the_scheme_may_be_in_capitals(server: Server) -> None:
    assert ImageSource(server.url().replace("http", "HTTP"), limits=LOCAL).size == (7, 5)


def test_chunked_and_unmeasured_answers_are_read(server: Server) -> None:
    def chunked(handler: Handler) -> None:
        half = len(png()) // 2
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (png()[:half], png()[half:], b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    server.routes["/chunked"] = chunked
    server.routes["/unmeasured"] = lambda handler: handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + png())
    assert ImageSource(server.url("/chunked"), limits=LOCAL).size == (7, 5)
    assert ImageSource(server.url("/unmeasured"), limits=LOCAL).size == (7, 5)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, status: int) -> None:
    server.routes["/old/x"] = lambda handler: handler.answer(b"", status, Location="../a.png")
    assert ImageSource(server.url("/old/x"), limits=LOCAL).size == (7, 5)


def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    assert ImageSource(server.url(), limits=LOCAL).size == (7, 5)


def test_the_next_address_is_tried_when_one_refuses(
    server: Server, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(["127.0.0.2", "127.0.0.1"]))
    assert ImageSource(server.url(host="images.test"), limits=LOCAL).size == (7, 5)
    assert connected == ["127.0.0.2", "127.0.0.1"]


# Where from


def test_fetching_can_be_turned_off(server: Server) -> None:
    limits = ImageLimits(remote_images=False, allow_private_hosts=True)
    with pytest.raises(ImageError, match=r"item 2: http://127.*fetching is turned off \(remote_images=False\)"):
        ImageSource(server.url(), "item 2", limits).load()
    assert server.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
def test_a_private_host_is_refused_and_never_asked(server: Server, connected: list[str], host: str) -> None:
    with pytest.raises(ImageError, match="not public; pass the image itself, or allow_private_hosts=True"):
        ImageSource(server.url(host=host)).load()
    assert (connected, server.requests) == ([], [])


def test_a_name_with_one_private_address_is_refused(
    server: Server, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names([PUBLIC_ADDRESS, "127.0.0.1"]))
    with pytest.raises(ImageError, match=r"images\.test is at an address that is not public"):
        ImageSource(server.url(host="images.test")).load()
    assert (connected, server.requests) == ([], [])


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: Server, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names([PUBLIC_ADDRESS], ["127.0.0.1"])  # a second look-up would be led astray
    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert ImageSource(server.url(host="images.test")).load().size == (7, 5)
    assert (names.asked, connected) == (["images.test"], [PUBLIC_ADDRESS])
    assert server.requests[0][1]["Host"] == f"images.test:{server.server_port}"


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/a.png", "//127.0.0.1:{port}/a.png", "/a.png"])
def test_every_redirect_is_checked_again(
    server: Server, connected: list[str], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    location = target.format(port=server.server_port)
    server.routes["/x"] = lambda handler: handler.answer(b"", 302, Location=location)
    monkeypatch.setattr(socket, "getaddrinfo", Names([PUBLIC_ADDRESS], ["127.0.0.1"]))
    with pytest.raises(ImageError, match="not public"):
        ImageSource(server.url("/x", host="images.test")).load()
    assert ([path for path, _ in server.requests], connected) == (["/x"], [PUBLIC_ADDRESS])


@pytest.mark.parametrize(
    "address",
    [
        *(PUBLIC_ADDRESS, "8.8.8.8", "::ffff:8.8.8.8", "2606:4700:4700::1111"),
        *("9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0"),
        *(
            "168.63.129.15",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "3ffe:ffff::1",
            "3fff:1000::",
        ),
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "168.63.129.16",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.175.48.1",
        "198.51.100.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001:2::1",
        "2001:3::1",
        "2001:4:112::1",
        "2001:30::1",
        "2620:4f:8000::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "2001::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://user:secret@127.0.0.1/a.png", "a user name or password in the URL is not sent"),
        ("http:///a.png", "the URL names no host"),
        ("http://127.0.0.1:port/a.png", "fetching failed .*check the URL"),
        ("http://127.0.0.1:99999/a.png", "fetching failed .*check the URL"),
        ("http://[::1/a.png", "fetching failed .*check the URL"),
        ("http://.images.test/a.png", "fetching failed .*check the URL"),
        ("http://" + "a" * 70 + ".test/a.png", "fetching failed .*check the URL"),
        ("gopher://images.test/a.png", "gopher:// is not fetched; use http or https"),
    ],
)
def test_urls_that_cannot_be_fetched(url: str, problem: str) -> None:
    with pytest.raises(ImageError, match=problem) as caught:
        ImageSource(url, "item 0", LOCAL).load()
    assert str(caught.value).startswith("item 0: ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"http://127.0.0.1/{'a' * 10_000_000}", "a URL of 10000017 characters"),
        (f"http://{chr(233) * 60_000}/a.png", "a host of 60000 characters"),
        (f"http://{(chr(233) + '.') * 30_000}/a.png", "a host of 60000 characters"),
        (f"http://{'a.' * 127}/a.png", "a host of 254 characters"),
        (f"{'a' * 60_000}://b", r"a{100}:// is not fetched"),
    ],
    ids=["path", "label beyond ascii", "labels beyond ascii", "labels", "scheme"],
)
def test_a_url_of_any_length_is_refused_in_few_words(url: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it is looked up"))
    with pytest.raises(ImageError, match=problem) as error:
        _ = ImageSource(url, limits=LOCAL).size
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: handler.wfile.write(b"HTTP/1.1 404 \x1b[31m" + b"a" * 60_000 + b"\r\n\r\n"),
        lambda handler: handler.answer(b"a", Content_Encoding="\x1b" + "a" * 60_000),
        lambda handler: handler.answer(b"", 302, Location="a" * 60_000 + "://b"),
        lambda handler: handler.wfile.write(b"\x1b[31m" + b"a" * 60_000 + b"\r\n\r\n"),
    ],
    ids=["reason", "encoding", "redirect", "no status"],
)
def test_what_a_server_says_is_told_in_few_words(server: Server, answer: Callable[[Handler], object]) -> None:
    server.routes["/x"] = answer
    with pytest.raises(ImageError, match="a{40}") as error:
        _ = ImageSource(server.url("/x"), limits=LOCAL).size
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"],
    ids=["interim answers", "trailers"],
)
def test_what_never_becomes_an_answer_ends_with_the_time(server: Server, piece: bytes) -> None:
    server.routes["/x"] = lambda handler: handler.drip(
        itertools.repeat(piece) if b"100" in piece else itertools.chain([piece], itertools.repeat(b"X: a\r\n"))
    )
    limits = ImageLimits(allow_private_hosts=True, total_timeout=0.2)
    with pytest.raises(ImageError, match="raise (total_timeout|the timeouts)"):
        _ = ImageSource(server.url("/x"), limits=limits).size


def test_an_unknown_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ImageError, match=r"item 0: http://images\.test/a\.png: .*Name or service not known"):
        ImageSource("http://images.test/a.png", "item 0").load()


def test_a_server_that_is_not_there_is_an_image_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ImageError, match="fetching failed"):
        ImageSource(f"http://127.0.0.1:{port}/a.png", limits=LOCAL).load()


# Answers


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda handler: handler.answer(b"no", 404), "the server answered 404 Not Found; check the URL"),
        (lambda handler: handler.answer(b"no", 500), "the server answered 500"),
        (lambda handler: handler.answer(png(), 206), "the server answered 206"),
        (lambda handler: handler.answer(b"", 302), "the server answered 302"),
        (lambda handler: handler.answer(b"<!doctype html>"), "HTML, XML or SVG text, not a raster image"),
        (lambda handler: handler.answer(b""), "zero bytes"),
        (lambda handler: handler.answer(png()[:40]), "damaged or not readable"),
        (lambda handler: handler.answer(png(), Content_Encoding="gzip"), r"compressed it \(gzip\) without being asked"),
        (lambda handler: handler.answer(png()[:-9], length=len(png())), "the connection ended 9 bytes early"),
        (lambda handler: handler.answer(b"", 302, Location="file:///etc/hostname"), "file:// is not fetched"),
        (lambda handler: handler.answer(b"", 302, Location="data:image/png;base64,AAAA"), "data:// is not fetched"),
        (lambda handler: handler.answer(b"", 302, Location="http://a:b@127.0.0.1/"), "user name or password"),
        (lambda handler: handler.answer(b"", 302, Location="http://[/"), "fetching failed"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "fetching failed"),
        (lambda handler: handler.wfile.write(b""), "fetching failed"),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"), "fetching failed"),
        (
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz"),
            "fetching failed",
        ),
    ],
)
def test_an_answer_that_is_no_image_says_why(server: Server, answer: Callable[[Handler], None], problem: str) -> None:
    server.routes["/x"] = answer
    with pytest.raises(ImageError, match=problem) as caught:
        ImageSource(server.url("/x"), "item 6", LOCAL).load()
    assert str(caught.value).startswith(f"item 6: {server.url('/x')}: ")


def test_the_limit_on_redirects_is_the_last_that_passes(server: Server) -> None:
    for hop in (1, 2):
        server.routes[f"/{hop}"] = lambda handler, hop=hop: handler.answer(b"", 302, Location=f"/{hop + 1}")
    server.routes["/3"] = server.routes["/a.png"]
    assert ImageSource(server.url("/1"), limits=ImageLimits(max_redirects=2, allow_private_hosts=True)).size == (7, 5)
    with pytest.raises(ImageError, match="more than 1 redirects"):
        ImageSource(server.url("/1"), limits=ImageLimits(max_redirects=1, allow_private_hosts=True)).load()


def test_a_redirect_to_itself_ends(server: Server) -> None:
    server.routes["/x"] = lambda handler: handler.answer(b"", 302, Location="/x")
    with pytest.raises(ImageError, match="more than 5 redirects"):
        ImageSource(server.url("/x"), limits=LOCAL).load()
    assert len(server.requests) == 6


# Size and time


def test_a_declared_length_over_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    server.routes["/x"] = lambda handler: handler.answer(b"", length=10**12)
    with pytest.raises(ImageError, match="over the limit of 1000 bytes; raise max_bytes"):
        ImageSource(server.url("/x"), limits=ImageLimits(max_bytes=1000, allow_private_hosts=True)).load()


@pytest.mark.parametrize("head", [b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n"], ids=["unmeasured", "chunked"])
def test_an_endless_answer_is_cut_off_at_the_limit(server: Server, head: bytes) -> None:
    def endless(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head)
        piece = b"%x\r\n%s\r\n" % (4096, bytes(4096))
        while not server.closing.is_set():
            handler.wfile.write(piece)

    server.routes["/x"] = endless
    with pytest.raises(ImageError, match="over the limit of 100000 bytes"):
        ImageSource(server.url("/x"), limits=ImageLimits(max_bytes=100_000, allow_private_hosts=True)).load()


DRIPS = {
    "body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "header line": (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("kind", DRIPS)
def test_a_server_that_drips_is_left_at_the_total_time(server: Server, kind: str) -> None:
    first, piece = DRIPS[kind]
    # A client that stays for half a minute is told something else in the end.
    server.routes["/x"] = lambda handler: handler.drip(itertools.chain([first], itertools.repeat(piece, 1500)))
    limits = ImageLimits(read_timeout=30, total_timeout=0.3, allow_private_hosts=True)
    with pytest.raises(ImageError, match=r"not complete after 0\.3 s|did not answer in time"):
        ImageSource(server.url("/x"), limits=limits).load()


def test_redirects_share_the_total_time(server: Server) -> None:
    def slow(handler: Handler) -> None:
        server.closing.wait(0.1)
        handler.answer(b"", 302, Location="/x")

    server.routes["/x"] = slow
    limits = ImageLimits(max_redirects=1000, total_timeout=0.35, allow_private_hosts=True)
    with pytest.raises(ImageError, match="not complete after|did not answer in time"):
        ImageSource(server.url("/x"), limits=limits).load()
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    ("scheme", "limits"),
    [
        ("http", ImageLimits(read_timeout=0.2, allow_private_hosts=True)),
        ("http", ImageLimits(total_timeout=0.2, allow_private_hosts=True)),
        ("https", ImageLimits(connect_timeout=0.2, allow_private_hosts=True)),
    ],
    ids=["no answer", "no answer in all", "no TLS handshake"],
)
def test_a_silent_server_is_left(scheme: str, limits: ImageLimits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ImageError, match="not answer in time"):
        ImageSource(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/a.png", limits=limits).load()


# TLS


@pytest.fixture
def tls_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server under TLS as images.test, which any name leads to; its authority is in authority.pem."""
    (tmp_path / "server.pem").write_text(SERVER_KEY_AND_CERTIFICATE)
    (tmp_path / "authority.pem").write_text(AUTHORITY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setattr(socket, "getaddrinfo", Names(["127.0.0.1"]))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return server


def test_a_certificate_is_checked_against_the_name_in_the_url(tls_server: Server) -> None:
    url = tls_server.url(host="images.test").replace("http:", "https:")
    assert ImageSource(url, limits=LOCAL).load().size == (7, 5)
    assert tls_server.requests[0][1]["Host"] == f"images.test:{tls_server.server_port}"


def test_another_name_than_the_certificates_is_refused(tls_server: Server) -> None:
    with pytest.raises(ImageError, match="(?i)fetching failed .*hostname mismatch"):
        ImageSource(tls_server.url(host="other.test").replace("http:", "https:"), limits=LOCAL).load()
    assert tls_server.requests == []


def test_an_unknown_authority_is_refused(tls_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ImageError, match="(?i)fetching failed .*certificate verify failed"):
        ImageSource(tls_server.url(host="images.test").replace("http:", "https:"), limits=LOCAL).load()
    assert tls_server.requests == []


def test_an_unreadable_list_of_authorities_is_an_image_error(
    tls_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ssl.SSLError("no start line")

    monkeypatch.setattr(ssl, "create_default_context", fail)
    with pytest.raises(ImageError, match="fetching failed .*no start line"):
        ImageSource(tls_server.url(host="images.test").replace("http:", "https:"), limits=LOCAL).load()


def test_a_redirect_from_https_to_http_is_refused(tls_server: Server) -> None:
    tls_server.routes["/x"] = lambda handler: handler.answer(b"", 302, Location="http://images.test/a.png")
    with pytest.raises(ImageError, match="redirected from https to http"):
        ImageSource(tls_server.url("/x", host="images.test").replace("http:", "HTTPS:"), limits=LOCAL).load()


def test_an_image_on_the_web_is_fetched_once_and_says_so(server: Server) -> None:
    source = ImageSource(server.url(), limits=LOCAL)
    assert source.is_remote
    assert [source.fetch(), source.fetch()] == [len(png())] * 2
    assert source.size == (7, 5)
    assert len(server.requests) == 1


def test_an_image_that_is_here_is_not_on_the_web() -> None:
    assert not ImageSource(png()).is_remote
    assert ImageSource(png()).fetch() == len(png())
