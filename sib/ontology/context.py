"""The block that the platform puts in front of every stored instance: who inserted it, through which KP, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

TIME_ZONE_ID = "UTC"


def context_data(session_key: str | None, user: str, kp: str, instance: str, timestamp: datetime) -> dict[str, Any]:
    """Make the ``contextData`` of an instance.

    Args:
        session_key: of the session that sent it.
        user: owner of the KP, or who joined with a password.
        kp: name of the KP.
        instance: of the KP, with or without its prefix ``KP:``.
        timestamp: naive UTC, milliseconds.

    Source: rows captured from the published server; sofia2 documentation "manual de ontologías".
    """
    return {
        "session_key": session_key,
        "user": user,
        "kp": kp,
        "kp_instancia": instance.removeprefix(f"{kp}:"),
        "timezoneId": TIME_ZONE_ID,
        "timestamp": timestamp,
    }
