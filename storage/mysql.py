"""How we connect to MySQL and MariaDB, whichever database is there."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import URL

CONNECT_S = 5
"""How long a server may take to answer a new connection."""
LOCK_S = 5
"""How long a statement waits for a row or a table that another transaction holds."""
STATEMENT_S = 60
"""How long the server may take for one statement."""

_HERE = ("127.0.0.1", "::1", "localhost")
_MODES = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"


def connect_args(url: URL) -> dict[str, Any]:
    """What the driver needs beside the URL: bounds for every wait, strict types, UTF-8 in passwords too."""
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "binary_prefix": True,
        "connect_timeout": CONNECT_S,
        "read_timeout": STATEMENT_S,
        "write_timeout": STATEMENT_S,
        "init_command": f"SET SESSION sql_mode='{_MODES}', innodb_lock_wait_timeout={LOCK_S}, lock_wait_timeout={LOCK_S}",
    }
    if url.password is not None:
        arguments["password"] = str(url.password).encode()
    if url.host in _HERE and not any(option.startswith("ssl") for option in url.query):
        # Without options the driver uses TLS if the server can; on this machine that only costs (10 ms a connection).
        arguments["ssl_disabled"] = True
    return arguments
