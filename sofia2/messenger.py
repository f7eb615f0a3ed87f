"""One SSAP message to a platform and what comes back, for ``sofia2 send``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from sib.errors import AuthenticationError, StoreUnavailableError
from sofia2.kp.connectors import connector_of
from sofia2.kp.transport import KpTransport

Told = Callable[[Any], None]


async def exchange(
    url: str,
    request: Mapping[str, Any],
    credentials: tuple[str, str] | None,
    *,
    timeout_s: float,
    wait_s: float,
    told: Told,
) -> list[Any]:
    """Send a message; give its answer and what came during ``wait_s`` seconds after it.

    Args:
        url: the endpoint.
        request: the message; ``direction`` and ``sessionKey`` are filled in if they are missing.
        credentials: KP (or KP:INSTANCE) and token to join with before, and to leave after.
        timeout_s: for each answer.
        wait_s: how long to wait for more.
        told: gets each payload as it comes.

    Raises:
        AuthenticationError: the JOIN was refused. StoreUnavailableError: no answer came in time.
        ConnectionLostError: nobody is there.
    """
    transport = await connector_of(url).connect()
    try:
        session_key = None if credentials is None else await _join(transport, *credentials, timeout_s)
        message = {"direction": "REQUEST", **({"sessionKey": session_key} if session_key else {}), **request}
        answers = [await _ask(transport, message, timeout_s)]
        told(answers[0])
        answers += await _wait(transport, wait_s, told)
        if session_key:
            leave = {"direction": "REQUEST", "messageType": "LEAVE", "sessionKey": session_key, "body": {}}
            await _ask(transport, leave, timeout_s)
        return answers
    finally:
        await transport.close()


def body_of(answer: Any) -> Mapping[str, Any]:
    """The body of an answer, whatever its dialect."""
    body = answer.get("body") if isinstance(answer, dict) else None
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except ValueError:
            body = None
    return body if isinstance(body, dict) else {}


async def _join(transport: KpTransport, kp: str, token: str, timeout_s: float) -> str:
    instance = kp if ":" in kp else f"{kp}:sofia2-send"
    body = {"instance": instance, "token": token}
    answer = await _ask(
        transport, {"direction": "REQUEST", "messageType": "JOIN", "sessionKey": None, "body": body}, timeout_s
    )
    if not body_of(answer).get("ok"):
        raise AuthenticationError(f"The platform does not let {kp!r} join: {body_of(answer).get('error')}")
    return str(answer["sessionKey"])


async def _ask(transport: KpTransport, message: Mapping[str, Any], timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            await transport.send(orjson.dumps(message))
            return _parsed(await transport.receive())
    except TimeoutError:
        raise StoreUnavailableError(f"No answer came within {timeout_s:g} s.") from None


async def _wait(transport: KpTransport, wait_s: float, told: Told) -> list[Any]:
    found: list[Any] = []
    try:
        async with asyncio.timeout(wait_s):
            while wait_s:
                found.append(_parsed(await transport.receive()))
                told(found[-1])
    except TimeoutError:
        pass
    return found


def _parsed(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")
