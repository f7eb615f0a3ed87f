"""The writer's side of a BDTR on MongoDB: its turn to write, and writes that can be taken back in part.

A server's transaction is all or nothing, and a refused write ends it. So every write is noted with its opposite: a
savepoint is taken back by the opposites, and what a refused write ended is written again up to that point.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from sib.errors import StoreUnavailableError
from storage.bdtr.mongo_client import TRANSIENT, Client, error_has_label

LOCK_S = 5.0
"""How long a writer waits for another process that writes to the same partition."""
TAKEOVER_S = 0.5
"""After this, a turn that is held by a process of this machine that no longer lives is taken from it."""
COMMIT_S = 15.0
"""How long a commit is repeated whose outcome the server did not tell."""

_UNKNOWN = "UnknownTransactionCommitResult"

Documents: TypeAlias = Collection


@dataclass(frozen=True, slots=True)
class Written:
    """Operations that were carried out on one collection, and those that take them back."""

    collection: Documents
    operations: Sequence[Any]
    opposites: Sequence[Any]


class Turn:
    """One transaction of the server."""

    def __init__(self, client: Client, notes: Documents) -> None:
        self._client = client
        self._notes = notes
        pid = os.getpid()
        token = random.SystemRandom().getrandbits(60)
        self._owner = {"host": socket.gethostname(), "pid": pid, "since": _started_at(pid), "token": token}
        self.session: ClientSession = client.start_session()
        self._is_known = False
        self._done: list[Written] = []
        self._is_open = False
        self._began_at: tuple[Any, ...] = ()

    def close(self) -> None:
        with contextlib.suppress(PyMongoError):
            self.session.end_session()
            if self._is_known:
                self._notes.delete_one({"_id": self._writer_id})

    # ------------------------------------------------------------------ begin and end

    def begin(self) -> dict[str, Any]:
        """Makes this writer the only one of the partition; gives the partition's state as it was.

        Raises:
            StoreUnavailableError: another process does not end its turn.
        """
        self._done = []
        self._make_known()
        started = time.monotonic()
        is_taken = False
        while True:
            state = self._try_to_begin()
            if state is not None:
                self._is_open = True
                self._began_at = _position(state)
                return state
            waited_s = time.monotonic() - started
            if waited_s > LOCK_S:
                raise StoreUnavailableError(
                    "The database did not answer: another process is writing to the BDTR; it will be tried again."
                )
            if waited_s > TAKEOVER_S and not is_taken:
                is_taken = True
                self._take_over()
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311

    def _try_to_begin(self) -> dict[str, Any] | None:
        self._start()
        try:
            return self._note_turn()
        except OperationFailure as error:
            self._abort()
            if error_has_label(error, TRANSIENT):
                return None
            raise
        except BaseException:
            self._abort()
            raise

    def _start(self) -> None:
        self.session.start_transaction(
            read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
        )

    def _note_turn(self) -> dict[str, Any]:
        """The write that conflicts with every other writer of the partition."""
        change = {"$inc": {"turns": 1}}
        state: Any = self._notes.find_one_and_update({"_id": "state"}, change, session=self.session)
        return dict(state)

    @property
    def _writer_id(self) -> str:
        return f"writer:{self._owner['token']}"

    def _make_known(self) -> None:
        """Notes our session beside the transaction: what is in it nobody sees, should we be killed."""
        if not self._is_known:
            session = self.session.session_id["id"]
            self._notes.bulk_write([put(self._writer_id, {**self._owner, "session": session})])
            self._is_known = True

    def _take_over(self) -> None:
        """Ends the transactions of processes of this machine that were killed: the server would wait a minute for them."""
        with contextlib.suppress(PyMongoError):
            for writer in self._notes.find({"_id": {"$gte": "writer:", "$lt": "writer;"}}):
                if self._is_dead(writer):
                    self._client.admin.command("killSessions", [{"id": writer["session"]}])
                    self._notes.delete_one({"_id": writer["_id"]})

    def _is_dead(self, owner: dict[str, Any]) -> bool:
        """Whether it was a process of this machine that no longer lives."""
        if owner.get("host") != self._owner["host"]:
            return False
        pid, since = owner.get("pid", 0), owner.get("since", 0)
        return not _is_alive(pid) or bool(since and since != _started_at(pid))

    def commit(self) -> None:
        """Makes everything durable, on most members and in their journals."""
        deadline = time.monotonic() + COMMIT_S
        while True:
            try:
                self.session.commit_transaction()
                break
            except PyMongoError as error:
                if not error_has_label(error, _UNKNOWN) or time.monotonic() > deadline:
                    raise
        self._is_open = False
        self._done = []

    def take_back(self) -> None:
        """Takes everything back."""
        if not self._is_open:
            return
        self._is_open = False
        self._abort()
        self._done = []

    def _abort(self) -> None:
        if self.session.in_transaction:
            with contextlib.suppress(PyMongoError):
                self.session.abort_transaction()

    # ------------------------------------------------------------------ writes

    @property
    def n_done(self) -> int:
        return len(self._done)

    def write(self, collection: Documents, operations: Sequence[Any], opposites: Sequence[Any]) -> None:
        """Carries out operations on one collection, in order. When the server refuses, none of them has happened."""
        try:
            collection.bulk_write(operations, session=self.session)
        except OperationFailure as error:
            if not error_has_label(error, TRANSIENT):
                self.restart()
            raise
        self._done.append(Written(collection, operations, opposites))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Lets collections and indexes be made or dropped: the server would wait for our own transaction to end."""
        if not self._is_open:
            yield
            return
        self._abort()
        try:
            yield
        finally:
            self.restart()

    def restart(self) -> None:
        """Begins anew and writes again what had been written: after a refusal, or to see a collection just made.

        Raises:
            StoreUnavailableError: another process has written meanwhile; what is under way must be done again.
        """
        self._abort()
        self._start()
        if _position(self._note_turn()) != self._began_at:
            raise StoreUnavailableError(
                "The database did not answer: another process has written to the BDTR; it will be tried again."
            )
        for written in self._done:
            written.collection.bulk_write(written.operations, session=self.session)

    def take_back_to(self, n_done: int) -> None:
        """Takes back all but the first writes."""
        for written in reversed(self._done[n_done:]):
            if written.opposites:
                written.collection.bulk_write(written.opposites, session=self.session)
        del self._done[n_done:]


def _position(state: dict[str, Any]) -> tuple[Any, ...]:
    return state["seq"], state["last_id"], state["catalogue"]


def put(id_: str, fields: dict[str, Any]) -> UpdateOne:
    """A note under a name, made or replaced."""
    return UpdateOne({"_id": id_}, {"$set": fields}, upsert=True)


def _started_at(pid: int) -> int:
    """Tells a process from a later one with the same number (after the restart of a container); 0 if nothing tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
