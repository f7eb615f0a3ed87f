"""What an endpoint does with each control packet: CONNECT, SUBSCRIBE, the acknowledgements and the rest."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.gateway.mqtt_options import NOT_SUBSCRIBED
from actors.gateway.mqtt_stream import AUTHENTICATING
from sib.mqtt import codec
from sib.mqtt.codec import Connect, FilterRequest
from sib.mqtt.errors import REFUSAL_BEFORE_5, ConnectRefusal, MqttProtocolError, Reason
from sib.mqtt.kp_topics import OWN_TOPICS, own_topic_kind
from sib.mqtt.properties import Properties, Property, PropertyValue, number_in
from sib.mqtt.session import Session
from sib.mqtt.topics import Subscription, is_topic_name, split_share

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint
    from actors.gateway.mqtt_connection import MqttConnection

log = logging.getLogger(__name__)

REFUSED = 0x80
AUTHENTICATE_S = 10.0


def handle(connection: MqttConnection, endpoint: MqttEndpoint, kind: int, flags: int, body: bytes) -> None:
    """Handle any packet but a PUBLISH.

    Raises:
        MqttProtocolError: The packet is wrong, or wrong at this point.
    """
    if not connection.is_accepted:
        if kind != codec.CONNECT:
            raise MqttProtocolError("the first packet is not a CONNECT")
        _connect(connection, endpoint, flags, body)
        return
    handler = _HANDLERS.get(kind)
    if handler is None:
        raise MqttProtocolError(f"a packet of type {kind} is not for a server, or not now")
    handler(connection, endpoint, flags, body)


# CONNECT


def _connect(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    try:
        connect = codec.decode_connect(flags, body)
    except codec.UnsupportedVersionError:
        connection.version = codec.MQTT_5 if len(body) > 6 and body[6] > codec.MQTT_5 else codec.MQTT_3_1_1
        _refuse(connection, endpoint, Reason.UNSUPPORTED_VERSION)
        return
    connection.version = connect.version
    refusal = _refusal(connection, endpoint, connect)
    if refusal:
        _refuse(connection, endpoint, refusal)
        return
    is_assigned = not connect.client_id
    connection.client_id = connect.client_id or f"auto-{secrets.token_hex(9)}"
    if connection.options.auth or endpoint.peers is not None:
        connection.hold_reading(AUTHENTICATING)
        endpoint.spawn(_admit(connection, endpoint, connect, is_assigned))
    else:
        _accept(connection, endpoint, connect, is_assigned)


def _refusal(connection: MqttConnection, endpoint: MqttEndpoint, connect: Connect) -> int:
    if connection.is_surplus:
        return Reason.SERVER_BUSY
    if any(identifier == Property.AUTHENTICATION_METHOD for identifier, _ in connect.properties):
        return Reason.BAD_AUTHENTICATION_METHOD
    if not connect.client_id and not connect.is_clean and connect.version != codec.MQTT_5:
        return Reason.CLIENT_ID_NOT_VALID
    if len(connect.client_id.encode()) > endpoint.limits.client_id_bytes_max:
        return Reason.CLIENT_ID_NOT_VALID
    will = connect.will
    if will is not None and connection.options.pubsub and not is_topic_name(will.topic):
        return Reason.TOPIC_NAME_INVALID
    return 0


async def _admit(connection: MqttConnection, endpoint: MqttEndpoint, connect: Connect, is_assigned: bool) -> None:
    """Accept the client once it has proved who it is, and no other gateway serves it any more."""
    refusal = await _authenticate(connection, endpoint, connect) if connection.options.auth else 0

    def settle(claim: int | None) -> None:
        if not connection.is_open:
            return
        if claim is None:
            # The client has connected to another gateway after this one; no CONNACK says so.
            endpoint.stats.take_overs += 1
            connection.close()
            return
        _accept(connection, endpoint, connect, is_assigned)
        if connection.session is not None:
            connection.session.claimed_at = claim
        connection.release_reading(AUTHENTICATING)

    try:
        if refusal or not connection.is_open:
            pass
        elif endpoint.peers is None or is_assigned:
            settle(0)
        else:
            lasts = bool(connect.session_expiry_s) if connect.version == codec.MQTT_5 else not connect.is_clean
            await endpoint.peers.claims.claim(
                connection.client_id, is_clean=connect.is_clean, is_persistent=lasts, settle=settle
            )
    except Exception:
        log.exception("an MQTT client could not be accepted", extra={"peer": connection.peer})
        refusal = Reason.SERVER_UNAVAILABLE
    if refusal and connection.is_open:
        _refuse(connection, endpoint, refusal)


async def _authenticate(connection: MqttConnection, endpoint: MqttEndpoint, connect: Connect) -> int:
    """The reason why the client is refused, 0 = none."""
    try:
        is_allowed = await asyncio.wait_for(
            endpoint.host.authenticate(connection.client_id, connect.username, connect.password, connection.peer),
            AUTHENTICATE_S,
        )
    except Exception:
        log.exception("an MQTT client could not be authenticated", extra={"peer": connection.peer})
        return Reason.SERVER_UNAVAILABLE
    return 0 if is_allowed else Reason.NOT_AUTHORIZED


def _refuse(connection: MqttConnection, endpoint: MqttEndpoint, reason: int) -> None:
    endpoint.stats.connections_refused += 1
    version = connection.version
    code = (
        reason if version == codec.MQTT_5 else REFUSAL_BEFORE_5.get(Reason(reason), ConnectRefusal.SERVER_UNAVAILABLE)
    )
    connection.write(codec.encode_connack(version, code))
    connection.close()


def _accept(connection: MqttConnection, endpoint: MqttEndpoint, connect: Connect, is_assigned: bool) -> None:
    options = connection.options
    is_v5 = connect.version == codec.MQTT_5
    expiry_s = connect.session_expiry_s if is_v5 else (0 if connect.is_clean else options.session_expiry_s)
    granted_expiry_s = min(expiry_s, options.session_expiry_s)
    endpoint.take_over(connection.client_id)
    resumed = endpoint.resume(connection.client_id, is_clean=connect.is_clean)
    session = resumed or endpoint.create_session(connection.client_id)
    if session is None:
        _refuse(connection, endpoint, Reason.SERVER_UNAVAILABLE)
        return
    answer: list[tuple[int, PropertyValue]] = []
    keep_alive_s = connect.keep_alive_s
    if is_v5:
        _apply_client_properties(connection, connect.properties)
        cap_s = options.server_keep_alive_s
        if cap_s is not None and not 0 < keep_alive_s <= cap_s:
            keep_alive_s = cap_s
            answer.append((Property.SERVER_KEEP_ALIVE, cap_s))
        if granted_expiry_s != expiry_s:
            answer.append((Property.SESSION_EXPIRY, granted_expiry_s))
        if options.receive_max < codec.RECEIVE_MAX_DEFAULT:
            answer.append((Property.RECEIVE_MAX, options.receive_max))
        if options.topic_alias_max:
            answer.append((Property.TOPIC_ALIAS_MAX, options.topic_alias_max))
        answer.append((Property.PACKET_BYTES_MAX, options.message_bytes_max))
        if is_assigned:
            answer.append((Property.ASSIGNED_CLIENT_ID, connection.client_id))
    session.expiry_s = granted_expiry_s
    session.will = connect.will if options.pubsub else None
    endpoint.stats.wills_ignored += connect.will is not None and not options.pubsub
    connection.keep_alive_s = keep_alive_s * 1.5
    connection.is_accepted = True
    connection.write(
        codec.encode_connack(
            connect.version, Reason.SUCCESS, is_session_present=resumed is not None, properties=tuple(answer)
        )
    )
    endpoint.attach(session, connection)


def _apply_client_properties(connection: MqttConnection, properties: Properties) -> None:
    receive_max = number_in(properties, Property.RECEIVE_MAX)
    if receive_max is not None:
        connection.in_flight_max = min(connection.in_flight_max, receive_max)
    connection.packet_bytes_max = number_in(properties, Property.PACKET_BYTES_MAX) or 0
    connection.alias_out_max = min(
        number_in(properties, Property.TOPIC_ALIAS_MAX) or 0, connection.options.topic_alias_max
    )


# SUBSCRIBE, UNSUBSCRIBE


def _subscribe(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    request = codec.decode_subscribe(flags, body, connection.version)
    session = _session(connection)
    reasons = bytearray()
    granted: list[tuple[FilterRequest, bool]] = []
    for line in request.filters:
        refusal = _refuse_filter(connection, endpoint, session, line)
        reasons.append(refusal or line.qos)
        if not refusal:
            granted.append((line, line.filter not in session.subscriptions))
            session.subscriptions[line.filter] = Subscription(
                line.qos, line.is_no_local, line.is_retain_as_published, line.retain_handling, request.subscription_id
            )
    saved = endpoint.save(session) if granted else None
    if saved is None:
        _subscribed(connection, endpoint, request.packet_id, bytes(reasons), granted)
    else:
        # A client that comes back believes what its SUBACK said: so it is durable first.
        def answer(done: asyncio.Future[None]) -> None:
            if done.cancelled() or done.exception() is not None:
                for line, is_new in granted:
                    if is_new:
                        session.subscriptions.pop(line.filter, None)
                connection.abort()
            elif session.connection is connection:
                _subscribed(connection, endpoint, request.packet_id, bytes(reasons), granted)

        saved.add_done_callback(answer)


def _subscribed(
    connection: MqttConnection,
    endpoint: MqttEndpoint,
    packet_id: int,
    reasons: bytes,
    granted: list[tuple[FilterRequest, bool]],
) -> None:
    session = _session(connection)
    connection.write(codec.encode_suback(packet_id, reasons, connection.version))
    for line, is_new in granted:
        subscription = session.subscriptions.get(line.filter)
        if subscription is None:
            continue
        kind = _own_kind(connection, line.filter)
        if kind is not None:
            connection.grant(kind, line.qos)
            continue
        group, pattern = _split(line.filter)
        endpoint.pubsub.subscribe(session, pattern, subscription, group)
        if group is None and (line.retain_handling == 0 or (line.retain_handling == 1 and is_new)):
            endpoint.pubsub.send_retained(session, pattern, subscription)
    connection.release_held(endpoint.clock())


def _refuse_filter(connection: MqttConnection, endpoint: MqttEndpoint, session: Session, line: FilterRequest) -> int:
    """The reason why a client may not subscribe to this filter; 0: it may."""
    options = connection.options
    is_v5 = connection.version == codec.MQTT_5
    if _own_kind(connection, line.filter) is not None:
        return 0
    if not options.pubsub or line.filter in options.deny_subscribe:
        return REFUSED
    if options.ssap and line.filter.startswith(OWN_TOPICS):
        return REFUSED
    if split_share(line.filter) is None:
        return Reason.TOPIC_FILTER_INVALID if is_v5 else REFUSED
    if len(session.subscriptions) >= endpoint.limits.subscriptions_max and line.filter not in session.subscriptions:
        return Reason.QUOTA_EXCEEDED if is_v5 else REFUSED
    return 0


def _own_kind(connection: MqttConnection, pattern: str) -> int | None:
    return own_topic_kind(pattern, connection.client_id) if connection.options.ssap else None


def _split(pattern: str) -> tuple[str | None, str]:
    return split_share(pattern) or (None, pattern)


def _unsubscribe(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    request = codec.decode_unsubscribe(flags, body, connection.version)
    session = _session(connection)
    reasons = bytearray()
    for pattern in request.filters:
        known = session.subscriptions.pop(pattern, None)
        reasons.append(Reason.SUCCESS if known else Reason.NO_SUBSCRIPTION_EXISTED)
        if known is None:
            continue
        kind = _own_kind(connection, pattern)
        if kind is not None:
            connection.grant(kind, NOT_SUBSCRIBED)
        else:
            group, plain = _split(pattern)
            endpoint.pubsub.unsubscribe(session, plain, group)
    endpoint.save(session)
    connection.write(codec.encode_unsuback(request.packet_id, bytes(reasons), connection.version))


# Acknowledgements


def _acknowledged(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    packet_id, _ = codec.decode_acknowledgement(codec.PUBACK, flags, body, connection.version)
    endpoint.delivery.finished(_session(connection), packet_id)


def _recorded(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    packet_id, reason = codec.decode_acknowledgement(codec.PUBREC, flags, body, connection.version)
    if reason >= REFUSED:
        endpoint.delivery.finished(_session(connection), packet_id)
        return
    session = _session(connection)
    is_known, message = session.release(packet_id)
    if message is not None:
        endpoint.delivery.forget(session, message)
    answer = Reason.SUCCESS if is_known else Reason.PACKET_ID_NOT_FOUND
    connection.write(codec.encode_acknowledgement(codec.PUBREL, packet_id, answer, connection.version))


def _released(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    packet_id, _ = codec.decode_acknowledgement(codec.PUBREL, flags, body, connection.version)
    is_known = _session(connection).complete(packet_id)
    answer = Reason.SUCCESS if is_known else Reason.PACKET_ID_NOT_FOUND
    connection.write(codec.encode_acknowledgement(codec.PUBCOMP, packet_id, answer, connection.version))


def _completed(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    packet_id, _ = codec.decode_acknowledgement(codec.PUBCOMP, flags, body, connection.version)
    endpoint.delivery.finished(_session(connection), packet_id)


# The rest


def _ping(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    if flags or body:
        raise MqttProtocolError("a PINGREQ that is none", Reason.MALFORMED_PACKET)
    connection.write(codec.PINGRESP_PACKET)


def _disconnect(connection: MqttConnection, endpoint: MqttEndpoint, flags: int, body: bytes) -> None:
    disconnect = codec.decode_disconnect(flags, body, connection.version)
    session = _session(connection)
    expiry_s = number_in(disconnect.properties, Property.SESSION_EXPIRY)
    if expiry_s is not None:
        if expiry_s and not session.expiry_s:
            raise MqttProtocolError("a session that was to end with its connection cannot be kept after all")
        session.expiry_s = min(expiry_s, connection.options.session_expiry_s)
    if disconnect.reason != Reason.DISCONNECT_WITH_WILL:
        session.will = None
    connection.close()
    endpoint.detach(connection)


def _session(connection: MqttConnection) -> Session:
    if connection.session is None:
        raise MqttProtocolError("the session has gone to another connection")
    return connection.session


_HANDLERS: dict[int, Callable[[MqttConnection, MqttEndpoint, int, bytes], None]] = {
    codec.PUBACK: _acknowledged,
    codec.PUBREC: _recorded,
    codec.PUBREL: _released,
    codec.PUBCOMP: _completed,
    codec.SUBSCRIBE: _subscribe,
    codec.UNSUBSCRIBE: _unsubscribe,
    codec.PINGREQ: _ping,
    codec.DISCONNECT: _disconnect,
}
