"""Connections to elsewhere on behalf of users: which addresses they may go to, and to no other.

Invariant: a name is resolved once per connection, the resolved address is checked, and exactly that address is connected to: a name
that changes its address between check and use gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import httpcore

from sib.errors import ConfigurationError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressPolicy:
    """Which addresses callbacks may go to: all public ones, and others only in ``allow``.

    Args:
        allow: Networks such as ``127.0.0.0/8`` (setting ``rest.callback_allow``).

    Raises:
        ConfigurationError: An item is not a network.
    """

    def __init__(self, allow: Iterable[str]) -> None:
        self.allow: tuple[Network, ...] = ()
        self.permit(allow)

    def permit(self, allow: Iterable[str]) -> None:
        """Take over other networks; they count from the next connection on.

        Raises:
            ConfigurationError: An item is not a network; nothing is changed.
        """
        self.allow = tuple(_network(text) for text in allow)

    @staticmethod
    def default_allow(listener_hosts: Iterable[str]) -> list[str]:
        """Loopback while every listener is on loopback, else nothing."""
        hosts = [host.strip("[]") for host in listener_hosts]
        if all(host == "localhost" or _is_loopback(host) for host in hosts):
            return [str(network) for network in LOOPBACK]
        return []

    def allows(self, text: str) -> bool:
        """Whether a callback may go to this address (an IPv4 address within IPv6 counts as what it is)."""
        address = _plain(ipaddress.ip_address(text.partition("%")[0]))
        if address.is_global and not address.is_multicast:
            return True
        return any(address in network for network in self.allow if network.version == address.version)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only. TLS still verifies the name, since that comes from the URL.

    Args:
        choose: given a host and its addresses, those that may be connected to, at least one; else it raises.
        resolve: the addresses of a name.
    """

    def __init__(self, choose: Callable[[str, Sequence[str]], Sequence[str]], resolve: Resolve) -> None:
        self._choose, self.resolve = choose, resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        allowed = self._choose(host, await self.resolve(host, port))
        for address in allowed[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(allowed[-1], port, timeout, local_address, socket_options)


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, or of an address itself. Raises OSError (gaierror) for an unknown name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ConfigurationError(f"rest.callback_allow: {text!r} is not a network such as 10.0.0.0/8") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
