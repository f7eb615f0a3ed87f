"""SSAP sessions: opened by JOIN, kept alive by every request, ended by LEAVE or expiry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sib.errors import AuthenticationError

TOUCH_LAG_S_MAX = 5.0


def touch_lag_s(expiry_s: float) -> float:
    """How late a gateway may tell that a session was used: sessions end so much after their expiry, and nothing else does."""
    return min(TOUCH_LAG_S_MAX, expiry_s / 4)


@dataclass(slots=True)
class Session:
    """One session. Times are epoch seconds; ``gateway`` and ``client`` tell where it last spoke."""

    key: str
    kp: str
    instance: str
    user: str
    credential: str
    dialect: int
    is_ciphered: bool
    gateway: str
    client: str
    created_at_s: float
    used_at_s: float
    subscriptions: dict[str, Any] = field(default_factory=dict)


class Sessions:
    """The sessions of one shard, by key."""

    def __init__(self, expiry_s: float) -> None:
        self.expiry_s = expiry_s
        self._by_key: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, session: Session) -> None:
        self._by_key[session.key] = session

    def find(self, key: str | None, now_s: float) -> Session:
        """The live session of a key.

        Raises:
            AuthenticationError: unknown, left or expired; what to do is to JOIN again.
        """
        session = self.get(key, now_s) if key else None
        if session is None:
            raise AuthenticationError("the session is not active: JOIN again and use the new session key")
        return session

    def get(self, key: str, now_s: float) -> Session | None:
        """The live session of a key, None if there is none."""
        session = self._by_key.get(key)
        return None if session is None or self.is_expired(session, now_s) else session

    def touch(self, key: str, used_at_s: float) -> bool:
        """Restart a session's expiry; an older time changes nothing. Says whether the session is here."""
        session = self._by_key.get(key)
        if session is None:
            return False
        session.used_at_s = max(session.used_at_s, used_at_s)
        return True

    def remove(self, key: str) -> Session | None:
        return self._by_key.pop(key, None)

    def is_expired(self, session: Session, now_s: float) -> bool:
        return now_s - session.used_at_s > self.expiry_s

    def expired(self, now_s: float) -> list[Session]:
        """Every session whose time is over."""
        return [session for session in self._by_key.values() if self.is_expired(session, now_s)]

    def all(self) -> list[Session]:
        return list(self._by_key.values())
