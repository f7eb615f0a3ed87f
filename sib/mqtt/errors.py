"""What MQTT says when something is wrong: reason codes, and the error that carries one."""

from __future__ import annotations

from enum import IntEnum

from sib.errors import SibError


class Reason(IntEnum):
    """Reason codes of MQTT 5 that this endpoint sends. Source: MQTT 5, section 2.4."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC = 0x83
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAX_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97


class ConnectRefusal(IntEnum):
    """Return codes of a CONNACK that refuses, before MQTT 5. Source: MQTT 3.1.1, table 3.1."""

    UNSUPPORTED_VERSION = 1
    CLIENT_ID_NOT_VALID = 2
    SERVER_UNAVAILABLE = 3
    NOT_AUTHORIZED = 5


REFUSAL_BEFORE_5 = {
    Reason.UNSUPPORTED_VERSION: ConnectRefusal.UNSUPPORTED_VERSION,
    Reason.CLIENT_ID_NOT_VALID: ConnectRefusal.CLIENT_ID_NOT_VALID,
    Reason.NOT_AUTHORIZED: ConnectRefusal.NOT_AUTHORIZED,
}
"""Every other reason becomes SERVER_UNAVAILABLE."""


class MqttProtocolError(SibError):
    """The peer broke the protocol: its connection is closed, in MQTT 5 with ``reason``."""

    code, status = "mqtt.protocol", 400

    def __init__(self, message: str, reason: int = Reason.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.args = (message, reason)

    @property
    def reason(self) -> int:
        return int(self.args[1])


def malformed(message: str) -> MqttProtocolError:
    """The error for bytes that are not the packet they claim to be."""
    return MqttProtocolError(message, Reason.MALFORMED_PACKET)
