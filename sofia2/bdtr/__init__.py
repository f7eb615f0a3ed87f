"""The real-time database without a platform: small synchronous collections with pymongo's names and arguments.

    import sofia2.bdtr
    with sofia2.bdtr.open("sqlite:data/bdtr.db") as db:
        db["Sensor"].insert_one({"unit": "C", "value": 21.5})
        hot = db["Sensor"].find({"value": {"$gt": 20}}).sort("value", -1).limit(10)
        print(db["Sensor"].sql("select avg(value) as mean from Sensor"))

Several processes may use one database; each write is durable when it returns. Starts without Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sib.errors import DuplicateKeyError
from sofia2.bdtr.collection import AFTER, BEFORE, Collection
from sofia2.bdtr.cursor import Cursor
from sofia2.bdtr.database import Database
from sofia2.bdtr.results import BulkWriteError
from storage.open import open_bdtr

__all__ = ["AFTER", "BEFORE", "BulkWriteError", "Collection", "Cursor", "Database", "DuplicateKeyError", "open"]


def open(url: str, *, clock: Callable[[], float] = time.time) -> Database:
    """Opens a real-time database, and makes it if it is not there.

    Args:
        url: ``sqlite:PATH``, ``mysql://``, ``postgresql://`` or ``oracle://USER:PASSWORD@HOST/DATABASE``, or
            ``mongodb://HOST/DATABASE?replicaSet=NAME``; ``partition=NAME`` in its options names a further one beside it.
        clock: seconds since 1970.

    Raises:
        ConfigurationError: the URL is wrong or of a kind that is not supported.
        StoreUnavailableError: the database cannot be reached.
    """
    return Database(open_bdtr(url, writer=True, clock=clock), clock)
