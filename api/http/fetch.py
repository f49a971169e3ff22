"""Outgoing HTTP: https only, never to an address inside the network, small and in time.

The guard sits where the socket is made: the address that is checked is the one that is connected
to, for every attempt and every redirect, so that a name which resolves to another address a moment
later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Collection
from functools import cache
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.settings import Settings

MAX_REDIRECTS = 3
TIMEOUT_S = 10.0  # of a whole fetch, redirects included
MAX_URL = 2048
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291, section 2.4


def is_public(address: str) -> bool:
    """Return whether an IP address, and an IPv4 address inside it, lies on the internet.

    Private, loopback, link-local (cloud metadata), shared, multicast and reserved ones do not.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def check_url(
    text: str, field: str, *, hosts: Collection[str] | None = None, insecure: bool = False
) -> URL:
    """Return the URL, if it may be called at all; its address is checked on connecting.

    Args:
        hosts: The allowed hosts, as `name` (port 443) or `name:port`; None allows every host.
        insecure: Whether plain http is allowed.

    Raises:
        InvalidInput: It may not; `field` is named.
    """
    url = _parse(text, field)
    if url.scheme != "https" and not (insecure and url.scheme == "http"):
        raise InvalidInput(f"{field} must be an https URL", loc=(field,))
    if not url.host or url.user is not None or url.password is not None:
        raise InvalidInput(f"{field} must name a host, without user and password", loc=(field,))
    try:
        url.host.encode("idna")  # as connecting does, which would not raise an OSError
    except UnicodeError as error:
        raise InvalidInput(f"{field} names a host that cannot exist", loc=(field,)) from error
    if hosts is not None and not {f"{url.host}:{url.port}", _short(url)} & set(hosts):
        raise InvalidInput(f"{field}: images are not fetched from {_short(url)}", loc=(field,))
    return url


def session(insecure: bool = False) -> aiohttp.ClientSession:
    """Return a client session that connects to public addresses only, without proxy and cookies.

    Args:
        insecure: Whether it connects to any address.
    """
    connector = aiohttp.TCPConnector(
        ssl=_tls(),
        force_close=True,
        socket_factory=None if insecure else _public_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # what is small on the wire could be large unpacked
        headers={"Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    )


class Unavailable(InvalidInput):
    """The image cannot be had now, and perhaps can later."""


class Fetcher:
    """A reader of input images from the hosts of SD_FETCH_HOSTS; there are none by default."""

    def __init__(self, settings: Settings) -> None:
        hosts = {host.strip().lower() for host in settings.fetch_hosts.split(",")}
        self.hosts = hosts - {""}
        self.insecure = settings.fetch_insecure
        self.max_bytes = round(settings.max_body_mb * 1e6)

    async def get(self, text: str, field: str) -> bytes:
        """Return the body behind a URL.

        Raises:
            InvalidInput: Fetching is off, or the URL may not be called, or answers with an error.
            Unavailable: The host cannot be reached, or has a problem.
            PayloadTooLarge: The body is larger than a request's may be.
        """
        if not self.hosts:
            raise InvalidInput(
                f"{field}: images are not fetched from URLs here (SD_FETCH_HOSTS); send the file",
                loc=(field,),
            )
        url = self._check(text, field)
        try:
            async with asyncio.timeout(TIMEOUT_S), session(self.insecure) as client:
                return await self._follow(client, url, field)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # no details: they would show what lies inside the network
            kind = InvalidInput if _is_refused(error) else Unavailable
            raise kind(f"{field} could not be fetched", loc=(field,)) from error

    def _check(self, text: str, field: str) -> URL:
        return check_url(text, field, hosts=self.hosts, insecure=self.insecure)

    async def _follow(self, client: aiohttp.ClientSession, url: URL, field: str) -> bytes:
        for _ in range(1 + MAX_REDIRECTS):
            async with client.get(url, allow_redirects=False) as response:
                location = response.headers.get("location")
                if not (300 <= response.status < 400 and location):
                    return await self._read(response, field)
            url = self._check(str(url.join(_parse(location, field))), field)
        raise InvalidInput(f"{field} is redirected too often", loc=(field,))

    async def _read(self, response: aiohttp.ClientResponse, field: str) -> bytes:
        if response.status != HTTPStatus.OK:
            kind = Unavailable if response.status in (408, 429, *range(500, 600)) else InvalidInput
            raise kind(f"{field} could not be fetched: status {response.status}", loc=(field,))
        data = bytearray()
        async for chunk in response.content.iter_chunked(64 * 1024):
            data += chunk
            if len(data) > self.max_bytes:
                raise PayloadTooLarge(
                    f"{field} is larger than {self.max_bytes / 1e6:g} MB", loc=(field,)
                )
        return bytes(data)


def _is_refused(error: Exception) -> bool:
    """Return whether the address is none that may be connected to, or no address."""
    cause = getattr(error, "os_error", None)  # aiohttp's
    return isinstance(error, ValueError) or isinstance(cause, PermissionError)


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make a socket; aiohttp calls this with each address that it is about to connect to."""
    family, kind, protocol, _, place = address
    if not is_public(place[0]):
        raise PermissionError(errno.EACCES, "not a public address")
    return socket.socket(family, kind, protocol)


def _parse(text: str, field: str) -> URL:
    """Parse with the client's own parser, so that both see the same host."""
    try:
        if len(text) > MAX_URL:
            raise ValueError
        url = URL(text)
        _ = url.port  # wrong ones are found here
    except ValueError as error:
        raise InvalidInput(f"{field} is not a URL", loc=(field,)) from error
    return url


def _short(url: URL) -> str:
    """Return the host, with its port where that is not the scheme's own."""
    host = (url.host or "").rstrip(".").lower()
    return host if url.is_default_port() else f"{host}:{url.port}"


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
