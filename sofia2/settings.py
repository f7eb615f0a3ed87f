"""The settings: where their values come from, and what they make of a platform. The table of them: ``settingtable``.

Order, later ones win: defaults, the settings file (``sofia2.toml``), settings that were applied (``sofia2 apply``),
variables (``SOFIA2_LIMITS__WRITE_TIMEOUT_S``: ``__`` stands for the dot), options of the command line. Hot settings are the
exception: once applied they act at once and everywhere, so the applied value wins.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from actors.config import Limits, Listener, PlatformConfig, Topology
from sib.errors import ConfigurationError
from sofia2.listeners import KINDS, LISTENERS_MAX, TLS_KINDS, is_loopback, parse_listener
from sofia2.settingtable import BY_NAME, LISTENERS, MODULES, MODULES_PLANNED, PREFIX, SERVE_MODULES, TABLE, find_setting
from sofia2.urlsecrets import has_secret

SERVE = "serve"
FILE_NAME = "sofia2.toml"
FILE_BYTES_MAX = 1 << 20
OTHER_VARIABLES = frozenset({"SOFIA2_USER", "SOFIA2_PASSWORD", "SOFIA2_DATA_RUN"})
"""Variables with our prefix that are no settings: who asks (``sofia2.bdtr``), and the mark of a platform's processes."""

_URLS = ("bdc", "bdtr", "bdh")


class Origin(IntEnum):
    """Where a value comes from; a greater one wins."""

    DEFAULT = 0
    FILE = 1
    APPLIED = 2
    VARIABLE = 3
    OPTION = 4


def check_setting(name: str, value: Any) -> bool:
    """Check a setting that is to be applied; says whether it acts at once.

    Raises:
        ConfigurationError: there is no such setting, it cannot be applied, or the value is not allowed.
    """
    if name.startswith(LISTENERS):
        parse_listener(name.removeprefix(LISTENERS), value, tls_cert="later", tls_key="later")
        return False
    setting = find_setting(name)
    if setting.is_start:
        raise ConfigurationError(f"{name} says how to find or start the platform: put it into {FILE_NAME}, not here.")
    if name == "modules":
        _check_modules(setting.read(value))
    setting.read(value)
    return setting.is_hot


@dataclass(slots=True)
class Settings:
    """The values in force for one command, and where each comes from."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    origins: dict[str, Origin] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    file: Path | None = None

    def put(self, name: str, value: Any, origin: Origin) -> None:
        """Set one value, unless a stronger origin has set it.

        Raises:
            ConfigurationError: there is no such setting, or the value is not allowed.
        """
        read = value if name.startswith(LISTENERS) else find_setting(name).read(value)
        if origin >= self.origins.get(name, Origin.DEFAULT):
            self.values[name], self.origins[name] = read, origin

    def get(self, name: str) -> Any:
        return self.values.get(name, BY_NAME[name].default)

    def origin(self, name: str) -> Origin:
        return self.origins.get(name, Origin.DEFAULT)

    def add_applied(self, applied: Mapping[str, Any]) -> None:
        """Take over the settings of the BDC. One that this version does not know is left out with a warning."""
        for name, value in applied.items():
            try:
                check_setting(name, value)
                self.put(name, value, Origin.APPLIED)
            except ConfigurationError as error:
                self.warnings.append(f"An applied setting is left out. {error.message}")

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return Path(self.get("data") or default_data()).expanduser().resolve()

    def url(self, name: str) -> str:
        """The URL of a database: given, or from its file, or the embedded default. It may hold a password.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        if self.origin(f"{name}_file") > self.origin(name):
            return _read_secret(self.get(f"{name}_file"))
        given = self.get(name)
        if given is not None:
            return str(given)
        return {
            "bdc": f"sqlite:///{self.data}/bdc.db",
            "bdtr": f"sqlite:{self.data}/bdtr",
            "bdh": f"file:{self.data}/bdh",
        }[name]

    def has_url(self, name: str) -> bool:
        """Whether the URL of a database was given."""
        return max(self.origin(name), self.origin(f"{name}_file")) > Origin.DEFAULT

    def listeners(self) -> tuple[Listener, ...]:
        """All listeners, the standard ones first. Port 0 is not chosen yet.

        Raises:
            ConfigurationError: one of them is wrong.
        """
        cert, key = _absolute(self.get("tls_cert")), _absolute(self.get("tls_key"))
        if bool(cert) != bool(key):
            raise ConfigurationError("A TLS listener needs both: set tls_cert and tls_key.")
        for path in filter(None, (cert, key)):
            if not Path(path).is_file():
                raise ConfigurationError(f"The file {path} of the TLS listeners does not exist.")
        found = [self._standard(kind, cert, key) for kind in KINDS]
        names = [name.removeprefix(LISTENERS) for name in self.values if name.startswith(LISTENERS)]
        found += [
            parse_listener(name, self.values[LISTENERS + name], tls_cert=cert, tls_key=key)
            for name in names
            if name not in KINDS
        ]
        if self.has_serve:
            found.append(Listener(SERVE, SERVE, self.get("host"), self.get("serve_port")))
        listeners = tuple(listener for listener in found if listener is not None)
        if len(listeners) > LISTENERS_MAX:
            raise ConfigurationError(f"There are {len(listeners)} listeners; at most {LISTENERS_MAX} are allowed.")
        return listeners

    def _standard(self, kind: str, cert: str, key: str) -> Listener | None:
        name, port = LISTENERS + kind, self.get(f"{kind}_port")
        if name in self.values:
            listener = parse_listener(kind, self.values[name], tls_cert=cert, tls_key=key)
            if listener is None:
                return None
            host, url_port = listener.host, listener.port
            if self.origin("host") > self.origin(name):
                host = self.get("host")
            if self.origin(f"{kind}_port") >= self.origin(name):
                url_port = port
            return Listener(kind, listener.kind, host, url_port, listener.options, listener.certificate, listener.key)
        if port is None:
            if kind != "mqtts" or not cert:
                return None
            port = KINDS[kind]
        if kind in TLS_KINDS and not cert:
            raise ConfigurationError(
                f"The listener {kind} needs a certificate: set tls_cert and tls_key to two PEM files."
            )
        is_tls = kind in TLS_KINDS
        return Listener(kind, kind, self.get("host"), port, {}, cert if is_tls else None, key if is_tls else None)

    @property
    def has_serve(self) -> bool:
        """Whether a module needs Ray Serve."""
        return not SERVE_MODULES.isdisjoint(self.get("modules"))

    def exposed(self) -> list[Listener]:
        """The listeners that other machines can reach."""
        return [listener for listener in self.listeners() if not is_loopback(listener.host)]

    def limits(self) -> Limits:
        """The bounds, as the actors take them."""
        return Limits(**{setting.limit: self.get(setting.name) for setting in TABLE if setting.limit})

    def mqtt_limits(self) -> dict[str, Any]:
        """The bounds of MQTT endpoints, as ``PlatformConfig.mqtt`` has them."""
        limits: dict[str, Any] = {"queue": {}}
        for setting in TABLE:
            if setting.mqtt_limit:
                place, _, name = setting.mqtt_limit.rpartition(".")
                (limits[place] if place else limits)[name] = self.get(setting.name)
        return limits

    def to_platform_config(self, listeners: tuple[Listener, ...] | None = None) -> PlatformConfig:
        """What the platform is started with.

        Args:
            listeners: the listeners with chosen ports; by default as they are set.

        Raises:
            ConfigurationError: a setting is wrong.
        """
        _check_modules(self.get("modules"))
        listeners = self.listeners() if listeners is None else listeners
        return PlatformConfig(
            data=str(self.data),
            bdc_url=_bdc_url(self.url("bdc")),
            bdtr_url=_bdtr_url(self.url("bdtr")),
            bdh_url=_bdh_url(self.url("bdh")),
            topology=_topology(self.get("modules"), has_serve=self.has_serve),
            listeners=listeners,
            modules=tuple(self.get("modules")),
            limits=self.limits(),
            mqtt=self.mqtt_limits(),
            is_loopback=all(is_loopback(listener.host) for listener in listeners),
        )


TOPOLOGY = Topology(
    mqtt_gateways=("mqtt-gateway-0",),
    http_gateways=("http-gateway-0",),
    session_shards=("session-shard-0",),
    partitions=("partition-0",),
    query_workers=("query-worker-0",),
    long_query_workers=("long-query-worker-0",),
)


def _topology(modules: Iterable[str], *, has_serve: bool) -> Topology:
    """The actors of these modules on one machine."""
    return replace(
        TOPOLOGY,
        serve_gateways=("serve-gateway-0",) if has_serve else (),
        cep_shards=("cep-shard-0",) if "script" in modules else (),
        rule_runners=("rule-runner-0",) if "script" in modules else (),
        process_runners=("process-runner-0",) if "process" in modules else (),
    )


def load_settings(
    options: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Settings:
    """The settings of a command: file, variables and options, checked.

    Args:
        options: values of the command line by the names of the settings; None means not given.
        environment: the variables.
        folder: the current directory.

    Raises:
        ConfigurationError: a setting is unknown or wrong; where it stands is said.
    """
    settings = Settings()
    options = {name: value for name, value in (options or {}).items() if value not in (None, [], ())}
    for name in _URLS:
        if has_secret(str(options.get(name, ""))):
            raise ConfigurationError(
                f"The URL of --{name} holds a password or token, which other users of this machine could read: put the URL into "
                f"{PREFIX}{name.upper()}, into a file named by {PREFIX}{name.upper()}_FILE, or into {FILE_NAME} with mode 0600."
            )
    for name, value in options.items():
        settings.put(name, value, Origin.OPTION)
    for name, value in _variables(environment):
        _put_from(settings, name, value, Origin.VARIABLE, "a variable")
    settings.file = _settings_file(settings, folder or Path.cwd())
    if settings.file is not None:
        for name, value in _read_file(settings.file, settings.warnings):
            if name in BY_NAME and BY_NAME[name].kind == "path" and isinstance(value, str):
                value = str(settings.file.parent / Path(value).expanduser())
            _put_from(settings, name, value, Origin.FILE, str(settings.file))
    return settings


def default_data() -> Path:
    """The data folder if none is set: ``sofia2`` in the user's data home."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "sofia2"


def _put_from(settings: Settings, name: str, value: Any, origin: Origin, place: str) -> None:
    try:
        settings.put(name, value, origin)
    except ConfigurationError as error:
        raise ConfigurationError(f"In {place}: {error.message}") from None


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for variable, value in sorted(environment.items()):
        if variable.startswith(PREFIX) and variable not in OTHER_VARIABLES and value:
            yield variable.removeprefix(PREFIX).lower().replace("__", "."), value


def _settings_file(settings: Settings, folder: Path) -> Path | None:
    given = settings.get("config")
    if given is not None:
        path = Path(given).expanduser().resolve()
        if not path.is_file():
            raise ConfigurationError(f"The settings file {path} does not exist.")
        return path
    return next((path for path in (settings.data / FILE_NAME, folder / FILE_NAME) if path.is_file()), None)


def _read_file(path: Path, warnings: list[str]) -> Iterator[tuple[str, Any]]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigurationError(f"The settings file {path} is longer than {FILE_BYTES_MAX} bytes.")
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigurationError(f"The settings file {path} cannot be read: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"The settings file {path} is no TOML: {error}.") from None
    if has_secret(text) and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.append(f"{path} holds a password and others can read it: chmod 600 {path}")
    return _flatten(content)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = prefix + key
        if isinstance(value, Mapping) and prefix != LISTENERS:
            yield from _flatten(value, name + ".")
        else:
            yield name, value


def _check_modules(modules: tuple[str, ...]) -> None:
    for module in modules:
        if module in MODULES_PLANNED:
            raise ConfigurationError(
                f"The module {module} is not part of this version: set modules to {', '.join(MODULES)}."
            )
        if module not in MODULES:
            raise ConfigurationError(f"There is no module {module[:40]!r}: set modules to {', '.join(MODULES)}.")
    if "sib" not in modules:
        raise ConfigurationError("The module sib is the platform itself: modules must name it.")


def _bdc_url(url: str) -> str:
    """The URL of the BDC, checked without asking the database; the path of SQLite's is made absolute."""
    from storage.bdc.engine import parse_url

    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return url
    return f"sqlite:///{Path(str(parsed.database)).expanduser().resolve()}"


def _bdtr_url(url: str) -> str:
    """The URL of the BDTR, checked without asking the database; SQLite's is a folder, made absolute: actors run elsewhere."""
    from storage.open import check_url, kind_of

    if kind_of(url) != "sqlite":
        return check_url(url)
    rest = url.partition(":")[2]
    path = rest.removeprefix("///") if rest.startswith("///") else rest
    if not path or path.startswith("//") or "?" in path:
        raise ConfigurationError("A BDTR on SQLite is sqlite:FOLDER, for example sqlite:/var/lib/sofia2/bdtr.")
    return f"sqlite:{Path(path).expanduser().resolve()}"


def _bdh_url(url: str) -> str:
    """The URL of the BDH, checked without asking it; a local folder is made absolute."""
    from storage.bdh.files import check_url

    return check_url(url)


def _absolute(path: str | None) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""


def _read_secret(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ConfigurationError(f"The file {path} that shall hold a URL cannot be read: {reason}.") from None
