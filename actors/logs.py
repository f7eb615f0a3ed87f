"""Structured logs: one JSON object a line, a file per actor in ``DATA/logs``, bounded by rotation.

Nothing that a client sent is logged but names (ontology, KP, instance, client id); tokens, passwords, keys and payloads never.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
from datetime import UTC, datetime
from pathlib import Path

FILE_BYTES_MAX = 10 << 20
FILES_KEPT = 5
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class JsonFormatter(logging.Formatter):
    """``{"at", "level", "actor", "pid", "logger", "message", ...}``; what is passed as ``extra`` stands beside it."""

    def __init__(self, actor: str) -> None:
        super().__init__()
        self._actor = actor

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "actor": self._actor,
            "pid": os.getpid(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD and key != "message"})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(data: str, actor: str) -> None:
    """Send this process's log to its file; again for the same actor changes nothing. Level: ``SOFIA2_LOG_LEVEL``, else INFO."""
    root = logging.getLogger()
    if any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        return
    folder = Path(data) / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        folder / f"{actor}.log", maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT - 1, encoding="utf-8"
    )
    handler.setFormatter(JsonFormatter(actor))
    root.addHandler(handler)
    root.setLevel(os.environ.get("SOFIA2_LOG_LEVEL", "INFO"))
    for noisy in ("httpx", "httpcore", "ray", "asyncio", "sqlalchemy", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
