"""A KP in Python: the client of the platform over MQTT and WebSocket. Starts without Ray."""

from sofia2.kp.client import KP
from sofia2.kp.errors import ConnectionLostError, RefusedError, RequestTimeoutError
from sofia2.kp.messages import BulkResult, Delete, Insert, Update
from sofia2.kp.subscription import Subscription
from sofia2.kp.transport import Connector, KpTransport

__all__ = [
    "KP",
    "BulkResult",
    "ConnectionLostError",
    "Connector",
    "Delete",
    "Insert",
    "KpTransport",
    "RefusedError",
    "RequestTimeoutError",
    "Subscription",
    "Update",
]
