"""From a URL to the connector that it means."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from sib.errors import ConfigurationError
from sofia2.kp.mqtt import MqttConnector
from sofia2.kp.transport import Connector
from sofia2.kp.websocket import PATH, WebSocketConnector

_SCHEMES = "mqtt://, mqtts://, ws://, wss://, http:// or https://"


def connector_of(url: str, *, client_id: str | None = None, tls: ssl.SSLContext | None = None) -> Connector:
    """The connector of a platform's endpoint.

    Args:
        url: ``mqtt://HOST:PORT`` or ``mqtts://…`` (a user and password in it go into CONNECT), or ``ws://…``, ``wss://…``,
            ``http://…``, ``https://…`` for WebSocket, with or without the path.
        client_id: The MQTT client id; absent, a new one.
        tls: For the ciphered schemes; absent, the machine's certificates.

    Raises:
        ConfigurationError: the URL is of no such kind.
    """
    parts = urlsplit(url)
    is_ciphered = parts.scheme in ("mqtts", "wss", "https")
    context = (tls or ssl.create_default_context()) if is_ciphered else None
    if parts.scheme in ("mqtt", "mqtts") and parts.hostname:
        port = parts.port or (8883 if is_ciphered else 1883)
        return MqttConnector(
            parts.hostname,
            port,
            client_id=client_id,
            username=parts.username,
            password=parts.password,
            tls=context,
        )
    if parts.scheme in ("ws", "wss", "http", "https") and parts.hostname:
        path = parts.path if parts.path.strip("/") else PATH
        scheme = "wss" if is_ciphered else "ws"
        return WebSocketConnector(f"{scheme}://{parts.netloc.rpartition('@')[2]}{path}", tls=context)
    raise ConfigurationError(f"a KP connects to a URL with {_SCHEMES} and a host")
