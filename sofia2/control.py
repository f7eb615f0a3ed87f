"""Talking to the platform of a data folder through its control socket: quick, and without Ray."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from sib.errors import StoreUnavailableError, error_of_code
from sofia2.daemon import RunFolder

ANSWER_BYTES_MAX = 16 << 20
IN_FORCE_S = 5.0
"""How long a change may take until every actor has it; it usually takes below half a second."""
POLL_S = 0.05


def ask(folder: RunFolder, command: str, *, timeout_s: float = 10.0, **fields: Any) -> dict[str, Any] | None:
    """Send one command and give the answer; None when no platform answers there.

    Raises:
        StoreUnavailableError: the platform is there and could not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(folder.control))
            connection.sendall(json.dumps({"command": command, **fields}).encode() + b"\n")
            text = _read_all(connection)
        answer: dict[str, Any] = json.loads(text)
    except TimeoutError:
        raise StoreUnavailableError(f"The platform on {folder.data} did not answer within {timeout_s:g} s.") from None
    except (OSError, ValueError):
        return None
    if "code" in answer:
        raise error_of_code(answer["code"], answer["error"])
    if "error" in answer:
        raise StoreUnavailableError(f"The platform on {folder.data} could not answer: {answer['error']}")
    return answer


def call(folder: RunFolder, actor: str, method: str, *arguments: Any, timeout_s: float = 30.0) -> Any:
    """Call a method of an actor of the running platform with plain JSON values, and give its result.

    Raises:
        StoreUnavailableError: no platform runs there, or it did not answer in time: the call may or may not have run.
        SibError: what the method raised, with its code, status and sentence.
    """
    answer = ask(folder, "call", actor=actor, method=method, arguments=arguments, timeout_s=timeout_s)
    if answer is None:
        raise StoreUnavailableError(f"No platform runs on {folder.data}: start it with sofia2 start.")
    return answer["result"]


def wait_in_force(folder: RunFolder, version: int, *, timeout_s: float = IN_FORCE_S) -> bool:
    """Wait until every actor has taken over this version of the configuration; says whether all have, or nobody runs."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer = ask(folder, "applied", version=version) if folder.running() else None
        except StoreUnavailableError:
            answer = {"applied": False}  # too busy to answer
        if answer is None or answer["applied"]:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)


def _read_all(connection: socket.socket) -> bytes:
    parts, size = [], 0
    while part := connection.recv(1 << 16):
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise ValueError("the answer is too long")
    return b"".join(parts)
