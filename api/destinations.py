"""Whom the service calls for a user: what the deployment names, else hosts of public addresses.

Inside a network an address is often all that protects: a service that calls what a user names would reach it for the user.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpx

from api.settings import settings

Address = IPv4Address | IPv6Address

_OF_IPV4 = IPv6Network("64:ff9b::/96")  # a gateway's name for an IPv4 address, which is its last 32 bits


class ForbiddenError(Exception):
    """The deployment does not call this host; the message says why."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An address that was found to be allowed, and is called as the host of its URL."""

    client: httpx.Client
    url: httpx.URL
    address: str

    def post(self, content: bytes, headers: dict[str, str]) -> httpx.Response:
        """What it answers; redirections are not followed, which could lead anywhere."""
        name = self.url.host
        at = self.url.copy_with(host=self.address)
        named = {**headers, "host": self.url.netloc.decode("ascii")}
        return self.client.post(at, content=content, headers=named, extensions={"sni_hostname": name})


@contextmanager
def open_destination(url: str, timeout: float) -> Iterator[Destination]:
    """Look up the host of `url` once, and call the address that was looked at: a name may mean another the next time.

    Raises ForbiddenError, or httpx.ConnectError for a name that is not known.
    """
    parsed = httpx.URL(url)
    address = _allowed_address(parsed.host, parsed.port or (443 if parsed.scheme == "https" else 80))
    with httpx.Client(timeout=timeout, trust_env=False) as client:
        yield Destination(client, parsed, address)


def refusal(host: str) -> str | None:
    """Why `host` can never be called, as far as its text tells; None where its address will have to be looked at."""
    hosts = settings().webhook_hosts
    if hosts:
        return None if host in hosts else f"this deployment calls {', '.join(hosts)} only"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return None if _is_allowed(address) else f"{address} is no public address; MHPO_WEBHOOK_HOSTS can allow it"


def _allowed_address(host: str, port: int) -> str:
    if (fault := refusal(host)) is not None:
        raise ForbiddenError(fault)
    try:
        found: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"{host}: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    named = host in settings().webhook_hosts
    refused = [text for text in addresses if not named and not _is_allowed(ip_address(text.partition("%")[0]))]
    if refused:  # one is enough: which of them answers is not ours to choose
        raise ForbiddenError(f"{host} is {refused[0]}, which is no public address; MHPO_WEBHOOK_HOSTS can allow it")
    return addresses[0]


def _is_allowed(address: Address) -> bool:
    """Public; or this machine, where it alone reaches the service and can call itself without us."""
    plain = _unwrapped(address)
    return (plain.is_global and not plain.is_multicast) or (plain.is_loopback and settings().on_loopback)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _OF_IPV4:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
