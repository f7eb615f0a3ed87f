"""What a batch of requests changes in the sessions of a shard: stored together, or taken back together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sib.sessions import Session
from storage.bdc.bdc import Bdc
from storage.bdc.records import LogRecord, SessionRecord, SubscriptionRecord


class SessionChanges:
    """What a batch writes to the BDC, in one transaction a kind."""

    def __init__(self) -> None:
        self.saved: list[Session] = []
        self.ended: list[Session] = []
        self.moved: list[tuple[Session, str]] = []
        self.subscribed: list[SubscriptionRecord] = []
        self.unsubscribed: list[SubscriptionRecord] = []
        self.seen: list[tuple[str, str, str, datetime]] = []
        self.tokens: list[tuple[str, datetime]] = []
        self.reports: list[LogRecord] = []
        self.undo: list[Callable[[], object]] = []

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """What is not stored has not happened: the batch comes again, and finds the sessions as they were."""
        try:
            yield
        except BaseException:
            for step in reversed(self.undo):
                step()
            raise

    def write(self, bdc: Bdc, expiry_s: float) -> None:
        ended = {session.key for session in self.ended}
        saved = {session.key: session for session in self.saved if session.key not in ended}
        if saved:
            bdc.sessions.save([_record(session, expiry_s) for session in saved.values()])
        if self.subscribed:
            bdc.subscriptions.save(self.subscribed)
        if self.unsubscribed:
            bdc.subscriptions.delete([record.subscription_id for record in self.unsubscribed])
        if ended:
            bdc.sessions.delete(sorted(ended))
        if self.seen:
            bdc.instances_seen(self.seen)
        if self.tokens:
            bdc.tokens_seen(self.tokens)
        if self.reports:
            bdc.log(self.reports)


def moment(at_s: float) -> datetime:
    """A time as the BDC keeps it: naive UTC."""
    return datetime.fromtimestamp(at_s, UTC).replace(tzinfo=None)


def _epoch_s(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


def _record(session: Session, expiry_s: float) -> SessionRecord:
    return SessionRecord(
        session.key,
        session.kp,
        session.instance,
        session.user,
        session.credential,
        session.gateway,
        session.client,
        session.dialect,
        moment(session.created_at_s),
        moment(session.used_at_s),
        moment(session.used_at_s + expiry_s),
        session.is_ciphered,
    )


def session_of(record: SessionRecord) -> Session:
    """A session that was stored, without its subscriptions."""
    return Session(
        record.session_key,
        record.kp,
        record.instance,
        record.user,
        record.credential,
        record.dialect,
        record.ciphered,
        record.gateway,
        record.client_ref,
        _epoch_s(record.created_at),
        _epoch_s(record.used_at),
    )
