"""The one table of all settings: name, kind, default, bounds, what it is for, and when a change of it acts."""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass
from typing import Any

from actors.config import Limits
from actors.gateway.mqtt_options import MqttLimits
from sib.errors import ConfigurationError
from sib.mqtt.session import QueueBounds
from sofia2.filereaders import suggestion

PREFIX = "SOFIA2_"
MODULES = ("sib", "api", "script", "process", "kp")
MODULES_PLANNED = ("console",)
SERVE_MODULES = frozenset({"api", "console"})
"""With one of them Ray Serve runs."""
LOOPBACK = "127.0.0.1"
LISTENERS = "listeners."


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``kind``: text, path, url, flag, integer, number, texts, networks.

    ``is_hot``: a change by ``sofia2 apply`` acts at once. ``is_start``: it says how to find or start the platform, so it
    cannot be applied. ``limit``: the field of ``Limits`` that it fills; ``mqtt_limit``: that of ``MqttLimits``.
    """

    name: str
    kind: str
    default: Any
    help: str
    unit: str = ""
    is_hot: bool = False
    is_start: bool = False
    limit: str = ""
    mqtt_limit: str = ""
    minimum: float = 0
    maximum: float = math.inf

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper().replace(".", "__")

    def read(self, value: Any) -> Any:
        """The value from a text or a TOML value.

        Raises:
            ConfigurationError: it is of another kind or out of bounds.
        """
        try:
            return _READERS[self.kind](value, self)
        except (ValueError, TypeError):
            raise ConfigurationError(f"The setting {self.name} is {_KINDS[self.kind]}{self._bounds()}.") from None

    def _bounds(self) -> str:
        if self.maximum < math.inf:
            return f" from {self.minimum:g} to {self.maximum:g}"
        return f" of at least {self.minimum:g}" if self.minimum else ""


def _port(name: str, default: int | None, help_: str) -> Setting:
    return Setting(name, "integer", default, help_, maximum=65_535)


def _limit(name: str, limit: str, help_: str, *, unit: str = "", is_hot: bool = False, minimum: float = 1) -> Setting:
    kind = "integer" if Limits.__annotations__[limit] == "int" else "number"
    return Setting(name, kind, getattr(Limits(), limit), help_, unit, is_hot, limit=limit, minimum=minimum)


def _mqtt(field: str, help_: str, unit: str = "") -> Setting:
    owner, name = (QueueBounds(), field.removeprefix("queue.")) if field.startswith("queue.") else (MqttLimits(), field)
    kind = "number" if unit == "s" else "integer"
    setting = f"mqtt.{field.replace('.', '_')}"
    return Setting(
        setting, kind, getattr(owner, name), help_, unit, mqtt_limit=field, minimum=0.01 if unit == "s" else 1
    )


TABLE: tuple[Setting, ...] = (
    Setting("config", "path", None, "The settings file.", is_start=True),
    Setting(
        "data", "path", None, "The data folder. Default: ~/.local/share/sofia2 (XDG_DATA_HOME counts).", is_start=True
    ),
    Setting("apply", "texts", (), "Files that `sofia2 start` applies before the listeners open.", is_start=True),
    Setting("detach", "flag", False, "`sofia2 start` returns when the platform is ready.", is_start=True),
    Setting("json", "flag", False, "`sofia2 start` prints one JSON line.", is_start=True),
    Setting("ready_timeout", "number", 120.0, "How long `sofia2 start` waits.", "s", is_start=True, minimum=1),
    Setting("modules", "texts", ("sib",), f"The parts that run: {', '.join(MODULES)}."),
    Setting("bdc", "url", None, "The configuration database. Default: sqlite:///DATA/bdc.db", is_start=True),
    Setting("bdc_file", "path", None, "A file that holds the URL of the BDC.", is_start=True),
    Setting("bdtr", "url", None, "The real-time database. Default: sqlite:DATA/bdtr", is_start=True),
    Setting("bdtr_file", "path", None, "A file that holds the URL of the BDTR.", is_start=True),
    Setting("bdh", "url", None, "The historical database. Default: file:DATA/bdh", is_start=True),
    Setting("bdh_file", "path", None, "A file that holds the URL of the BDH.", is_start=True),
    Setting(
        "host",
        "text",
        LOOPBACK,
        "The address of the listeners that have no URL of their own. Any but a loopback one exposes them.",
    ),
    _port("mqtt_port", 1883, "The port of the listener mqtt; 0: any free port."),
    _port("mqtts_port", None, "The port of the listener mqtts; 8883 once a certificate is set."),
    _port("http_port", 8080, "The port of the listener http."),
    _port("https_port", None, "The port of the listener https. Off until it is set; it needs a certificate."),
    _port("serve_port", 8000, "The port of Ray Serve; only with the module api or console."),
    Setting("tls_cert", "path", None, "The certificate (chain) of the TLS listeners, a PEM file."),
    Setting("tls_key", "path", None, "Its private key, a PEM file."),
    _limit(
        "sessions.expiry_s",
        "sessions_expiry_s",
        "How long an SSAP session lives after its last use.",
        unit="s",
        is_hot=True,
    ),
    _limit("sessions.max", "sessions_max", "The most SSAP sessions of one session shard; a JOIN beyond it is refused."),
    _limit("query.row_cap", "query_row_cap", "The most rows that a query answers.", unit="rows", is_hot=True),
    _limit(
        "query.time_limit_s",
        "query_time_limit_s",
        "How long a query may take; then it is stopped.",
        unit="s",
        is_hot=True,
        minimum=0.01,
    ),
    Setting(
        "rest.callback_allow",
        "networks",
        (),
        "Networks that REST callbacks may go to. Default: this machine if all listeners are on loopback, "
        "else any public address.",
        is_hot=True,
        limit="callback_allow",
    ),
    _limit(
        "limits.join_failures_per_minute",
        "join_failures_per_minute",
        "Failed JOINs of one KP and address; then answers are delayed.",
        is_hot=True,
    ),
    _limit(
        "limits.join_failure_delay_s_max",
        "join_failure_delay_s_max",
        "The longest such delay.",
        unit="s",
        is_hot=True,
        minimum=0,
    ),
    _limit(
        "limits.write_timeout_s",
        "write_timeout_s",
        "How long a write may wait for the store; then it is answered as failed.",
        unit="s",
    ),
    _limit(
        "limits.message_bytes_max",
        "message_bytes_max",
        "The longest SSAP message; longer ones are answered with an error.",
        unit="bytes",
        minimum=1024,
    ),
    _limit(
        "limits.websocket_idle_s",
        "websocket_idle_s",
        "A WebSocket without a message for so long is closed; 0: never.",
        unit="s",
        minimum=0,
    ),
    _limit(
        "limits.requests_waiting_max",
        "requests_waiting_max",
        "Requests of a gateway that wait for a partition; then it stops reading.",
    ),
    _limit(
        "limits.requests_per_connection_max",
        "requests_per_connection_max",
        "Requests of one connection in work; then it is not read.",
    ),
    _limit(
        "limits.subscriptions_per_session_max",
        "subscriptions_per_session_max",
        "Subscriptions of one SSAP session; more are refused.",
    ),
    _limit(
        "limits.commands_per_connection_max",
        "commands_per_connection_max",
        "SUBSCRIBECOMMANDs of one connection; more are refused.",
    ),
    _limit(
        "limits.queries_at_once_max",
        "queries_at_once_max",
        "Queries of one gateway at work, at most 4 of them (3 of one user) for longer than 0.1 s; four times as many wait, more "
        "are refused.",
    ),
    Setting(
        "kp.deployers",
        "texts",
        (),
        "Users with the role COLABORADOR whose KPs the platform runs; those of an ADMINISTRADOR it runs anyway.",
        is_hot=True,
        limit="kp_deployers",
    ),
    Setting(
        "kp.wheelhouse",
        "path",
        None,
        "The folder of wheels from which dependencies of KPs are installed. Default: DATA/wheelhouse",
        limit="kp_wheelhouse",
    ),
    Setting(
        "rules.http_allow",
        "texts",
        (),
        "Hosts that scripts may make HTTP requests to: api.example.org, *.example.org, * (every public one); "
        "and networks such as 10.0.0.0/8, else no private address is reached.",
        is_hot=True,
        limit="rules_http_allow",
    ),
    _limit("rules.memory_mb", "rules_memory_mb", "Memory of one rule's script.", unit="MiB", minimum=64),
    _limit(
        "rules.writes_per_minute", "rules_writes_per_minute", "Inserts, updates and deletes of one rule.", is_hot=True
    ),
    _limit("rules.queries_per_minute", "rules_queries_per_minute", "Queries of one rule.", is_hot=True),
    _limit("rules.http_per_minute", "rules_http_per_minute", "HTTP requests of one rule.", is_hot=True, minimum=0),
    _limit("rules.mails_per_minute", "rules_mails_per_minute", "Mails of one rule.", is_hot=True, minimum=0),
    Setting("mail.host", "text", None, "The SMTP server for mail of scripts.", is_hot=True, limit="mail_host"),
    Setting("mail.port", "integer", 587, "Its port.", is_hot=True, limit="mail_port", minimum=1, maximum=65_535),
    Setting("mail.security", "text", "starttls", "starttls, tls or none.", is_hot=True, limit="mail_security"),
    Setting("mail.user", "text", None, "The user to log in as; none: no login.", is_hot=True, limit="mail_user"),
    Setting(
        "mail.password_file", "path", None, "A file that holds the password.", is_hot=True, limit="mail_password_file"
    ),
    Setting("mail.sender", "text", None, "The address that mail comes from.", is_hot=True, limit="mail_sender"),
    _limit(
        "mqtt.session_expiry_s",
        "mqtt_session_expiry_s",
        "The longest life of an MQTT session without a connection, on listeners that do not say otherwise.",
        unit="s",
        minimum=0,
    ),
    _mqtt("connect_s", "From the first byte of a connection to its CONNECT; then it is closed.", "s"),
    _mqtt("packet_s", "From the first to the last byte of a packet; then the connection is closed.", "s"),
    _mqtt("stalled_s", "How long a client may read nothing of what is sent to it; then it is closed.", "s"),
    _mqtt("closing_s", "How long a connection that is being closed may take; then it is cut.", "s"),
    _mqtt("answer_wait_s", "How long an answer waits for the SUBSCRIBE to its topic; then it goes out at QoS 0.", "s"),
    _mqtt("answers_waiting_max", "Answers of a connection that wait for a SUBSCRIBE; then they go out at QoS 0."),
    _mqtt("in_flight_max", "Messages on their way to a client at QoS 1 and 2; more wait in its queue."),
    _mqtt("queue.messages_max", "What waits for one client; at the bound the oldest go and are counted."),
    _mqtt("queue.bytes_max", "What waits for one client; at the bound the oldest go and are counted.", "bytes"),
    _mqtt("queue_bytes_all_max", "What waits for all clients; at the bound the new ones go and are counted.", "bytes"),
    _mqtt("sessions_max", "Sessions of a gateway; at the bound a new one is refused."),
    _mqtt("subscriptions_max", "Filters of one session; at the bound SUBACK refuses."),
    _mqtt("retained_max", "Topics with a retained message; at the bound a new one is not retained, and counted."),
    _mqtt("retained_bytes_max", "Bytes of retained messages; at the bound a new one is not retained.", "bytes"),
    _mqtt("partial_bytes_max", "Packets that have begun and not ended; at the bound a long one is refused.", "bytes"),
    _mqtt("write_buffer_bytes_max", "What a socket has not taken; then messages at QoS 0 to it are dropped.", "bytes"),
    _mqtt("client_id_bytes_max", "Longer client ids are refused.", "bytes"),
)
"""All settings but the listeners, which have names of their own: ``listeners.<name>``."""

BY_NAME = {setting.name: setting for setting in TABLE}
_FALSE, _TRUE = ("false", "0", "no", "off", ""), ("true", "1", "yes", "on")


def _read_flag(value: Any, _setting: Setting) -> bool:
    text = str(value).lower()
    if text not in _TRUE + _FALSE:
        raise ValueError
    return text in _TRUE


def _read_number(value: Any, setting: Setting) -> float:
    if isinstance(value, bool):
        raise ValueError
    number = float(value)
    if not setting.minimum <= number <= setting.maximum or not math.isfinite(number):
        raise ValueError
    return number


def _read_integer(value: Any, setting: Setting) -> int:
    number = _read_number(value, setting)
    if number != int(number):
        raise ValueError
    return int(number)


def _read_text(value: Any, _setting: Setting) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise ValueError
    return str(value).strip()


def _read_texts(value: Any, _setting: Setting) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in items):
        raise ValueError
    return tuple(text for text in (str(item).strip() for item in items) if text)


def _read_networks(value: Any, setting: Setting) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(text, strict=False)) for text in _read_texts(value, setting))


_READERS = {
    "text": _read_text,
    "path": _read_text,
    "url": _read_text,
    "flag": _read_flag,
    "integer": _read_integer,
    "number": _read_number,
    "texts": _read_texts,
    "networks": _read_networks,
}
_KINDS = {
    "text": "a text",
    "path": "the path of a file or folder",
    "url": "a URL",
    "flag": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "texts": "a list of texts",
    "networks": "a list of networks such as 10.0.0.0/8",
}


def find_setting(name: str) -> Setting:
    """The setting of a name.

    Raises:
        ConfigurationError: there is none; the nearest one is named.
    """
    found = BY_NAME.get(name)
    if found is None:
        raise ConfigurationError(f"There is no setting {name[:80]!r}: {suggestion(name, [*BY_NAME, 'listeners.NAME'])}")
    return found
