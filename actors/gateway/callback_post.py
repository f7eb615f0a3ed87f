"""One POST to a subscriber's endpoint, to an address that is allowed and to no other.

Invariants: the name of an endpoint is resolved once per connection, the resolved address is checked, and exactly that
address is connected to (a name that changes its address between check and use gains nothing); no redirect is followed
and no proxy of the environment is used; the answer's body is bounded.
Source: Sofia2 SIL-Bridge-Sofia2 Sofia2Bridge.java:183-194 (what the receivers are); the address rule is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

import httpcore
import httpx

from actors.outgoing import AddressPolicy, CheckedBackend, Resolve, resolve_name
from sib.errors import MalformedMessageError

POST_TIMEOUT_S = 10.0
"""For one POST, name resolution and connection included."""
CONNECTIONS_MAX = 32
IDLE_CONNECTIONS_MAX = 16
IDLE_TIMEOUT_S = 30.0
RESPONSE_BYTES_MAX = 64 * 1024
"""Of an answer's body; a longer one costs its connection."""
ENDPOINT_CHARS_MAX = 2048


class EndpointRefusedError(Exception):
    """The endpoint's address is not one that callbacks may go to. Trying again later may help: names change."""


def check_endpoint(endpoint: str, policy: AddressPolicy | None = None) -> None:
    """Refuse an endpoint that can never be called; names are not resolved and nobody is contacted.

    Raises:
        MalformedMessageError: It is no absolute http or https URL, or has an address that callbacks may not go to.
    """
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
        httpx.URL(endpoint)
    except (ValueError, httpx.InvalidURL):
        host = None
    if host is None or parts.scheme not in ("http", "https") or len(endpoint) > ENDPOINT_CHARS_MAX or parts.username:
        raise MalformedMessageError("$endpoint must be a URL such as http://host:port/path, without a user in it")
    if policy is None:
        return
    try:
        is_allowed = policy.allows(host)
    except ValueError:
        return  # a name
    if not is_allowed:
        raise MalformedMessageError(f"Callbacks may not go to {host}: add its network to rest.callback_allow")


class CallbackPoster:
    """POSTs JSON; keeps a bounded pool of connections. ``await post(endpoint, body)`` gives the status."""

    def __init__(
        self, policy: AddressPolicy, *, resolve: Resolve | None = None, timeout_s: float = POST_TIMEOUT_S
    ) -> None:
        self._timeout_s = timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            network_backend=CheckedBackend(partial(_allowed, policy), resolve or resolve_name),
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=IDLE_CONNECTIONS_MAX,
            keepalive_expiry=IDLE_TIMEOUT_S,
        )

    async def __call__(self, endpoint: str, body: bytes) -> int:
        """The status of the answer, whatever it is.

        Raises:
            EndpointRefusedError: The address is not allowed; nothing was sent.
            OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, TimeoutError: The
                endpoint was not reached or did not answer in time; it may have got the body.
        """
        url = httpx.URL(endpoint)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        host = url.netloc
        headers = [(b"Host", host), (b"Content-Type", b"application/json"), (b"Accept", b"application/json")]
        async with asyncio.timeout(self._timeout_s):
            async with self._pool.stream("POST", target, headers=headers, content=body) as response:
                size_bytes = 0
                async for chunk in response.aiter_stream():
                    size_bytes += len(chunk)
                    if size_bytes > RESPONSE_BYTES_MAX:
                        break
                return int(response.status)

    async def close(self) -> None:
        await self._pool.aclose()


def _allowed(policy: AddressPolicy, host: str, addresses: Sequence[str]) -> list[str]:
    allowed = [address for address in addresses if policy.allows(address)]
    if not allowed:
        raise EndpointRefusedError(f"{host} is at {', '.join(addresses)}, which rest.callback_allow does not allow")
    return allowed
