"""The topics of KPs: three per client, on which the platform speaks to it, and those that it publishes requests to.

Source: Sofia2 java-api MqttConstants.java, javascript and node clients (the request topics differ by client).
"""

from __future__ import annotations

ANSWER, INDICATION, COMMAND = 0, 1, 2
OWN_TOPICS = ("/TOPIC_MQTT_PUBLISH", "/TOPIC_MQTT_INDICATION", "/TOPIC_MQTT_SIB_COMMANDER")
"""By kind: the prefix of a client's own topic. Its client id follows, without a slash."""

REQUEST_TOPICS = frozenset({b"", b"SSAP-REQUEST", b"CLIENT_TOPIC", b"/queue/message"})
"""What real KPs publish to. A pure SSAP listener takes any topic."""
CLEAR_TOPIC = b"SSAP-REQUEST"
"""Requests to it are answered in clear: only the Node client uses it, and it cannot decipher."""


def own_topic(kind: int, client_id: str) -> str:
    """The topic on which a client gets its answers, indications or commands."""
    return OWN_TOPICS[kind] + client_id


def own_topic_kind(pattern: str, client_id: str) -> int | None:
    """Which of the client's own three topics this filter is; None = none of them."""
    for kind, prefix in enumerate(OWN_TOPICS):
        if pattern == prefix + client_id:
            return kind
    return None
