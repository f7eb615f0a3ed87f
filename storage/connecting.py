"""How we connect to database servers, whichever database is there: no wait without a bound."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

from sib.errors import ConfigurationError

CONNECT_S = 5
"""How long a server may take to answer a new connection."""
LOCK_S = 5
"""How long a statement waits for a row or a table that another transaction holds."""
STATEMENT_S = 60
"""How long the server may take for one statement."""

_HERE = ("127.0.0.1", "::1", "localhost")
_MODES = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"


def server_engine(url: URL, connect_args: dict[str, Any], **options: Any) -> Engine:
    """An engine for a server. Values of statements never get into error texts; Oracle's calls are bounded.

    Raises:
        ConfigurationError: the host cannot be one. On connecting: the driver does not know an option of the URL.
    """
    if "@" in str(url.host):  # else the rest of the password would be shown as a host that is not found
        raise ConfigurationError("The host in a database URL has no '@': write %40 for each '@' in the password.")
    engine = create_engine(url, connect_args=connect_args, hide_parameters=True, **options)
    event.listen(engine, "do_connect", _connect)
    if url.get_backend_name() == "oracle":
        event.listen(engine, "connect", _bound_oracle)
    return engine


def _connect(dialect: Any, _record: object, arguments: Any, options: Any) -> Any:
    try:
        return dialect.connect(*arguments, **options)
    except TypeError as error:  # it names the option, not its value
        raise ConfigurationError(f"A database URL has an option that its driver does not know: {error}.") from None


def _bound_oracle(connection: Any, _record: object) -> None:
    connection.call_timeout = STATEMENT_S * 1000


ORACLE_ARGS: dict[str, Any] = {"tcp_connect_timeout": CONNECT_S}
"""What oracledb needs beside the URL."""


def mysql_args(url: URL) -> dict[str, Any]:
    """What PyMySQL needs beside the URL: bounds for every wait, strict types, UTF-8 in passwords too."""
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
