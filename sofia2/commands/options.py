"""Options that many commands share, and what they lead to: settings, and the configuration of a platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.console import NO, CliError, output

if TYPE_CHECKING:
    from actors.config import PlatformConfig
    from sofia2.daemon import RunFolder
    from sofia2.settings import Settings
    from storage.bdc.bdc import Bdc


def _switch_to_json(is_json: bool) -> bool:
    output.is_json = output.is_json or is_json
    return is_json


Json = Annotated[
    bool, typer.Option("--json", help="One JSON value on standard output.", callback=_switch_to_json, is_eager=True)
]
Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help="The platform's data folder.")]
Config = Annotated[str | None, typer.Option("--config", metavar="FILE", help="The settings file.")]


def settings_of(data: str | None, config: str | None = None, **options: Any) -> Settings:
    """The settings of a command, with their warnings told.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    from sofia2.settings import load_settings

    settings = load_settings({"data": data, "config": config, **options})
    for warning in settings.warnings:
        output.warn(warning)
    settings.warnings.clear()
    return settings


def folder_of(settings: Settings) -> RunFolder:
    """The run folder of the data folder that is meant."""
    from sofia2.daemon import RunFolder

    return RunFolder(settings.data)


def platform_config(settings: Settings) -> PlatformConfig:
    """The configuration that a platform runs with; of a stopped one, what it would be started with or was last."""
    from sofia2.daemon import config_from_json

    folder = folder_of(settings)
    has_urls = any(settings.has_url(name) for name in ("bdc", "bdtr"))
    if folder.config.exists() and (not has_urls or folder.running()):
        return config_from_json(folder.config.read_text())
    return settings.to_platform_config()


@contextmanager
def configuration(settings: Settings, *, for_change: bool = False) -> Iterator[Bdc]:
    """The configuration database of a platform, running or not; for a change it is made if it is not there.

    Raises:
        CliError: there is none yet. ConfigurationError: it is of another version.
    """
    from sib.errors import ConfigurationError
    from storage.bdc.bdc import open_bdc

    url = platform_config(settings).bdc_url
    if not for_change and url.startswith("sqlite:///") and not _exists(url):
        raise CliError(NO, f"there is no platform in {settings.data} yet: 'sofia2 start' or 'sofia2 apply' makes one")
    bdc = open_bdc(url)
    try:
        try:
            bdc.check()
        except ConfigurationError:
            if not for_change:
                raise
            bdc.upgrade()
        yield bdc
    finally:
        bdc.close()


def in_force(settings: Settings, version: int | None) -> None:
    """Wait until a running platform works with this version of the configuration; warn when that takes too long."""
    from sofia2.control import IN_FORCE_S, wait_in_force

    if version is not None and not wait_in_force(folder_of(settings), version):
        output.warn(f"it is stored, but not every part of the platform has taken it over within {IN_FORCE_S:g} s")


def _exists(url: str) -> bool:
    from pathlib import Path

    return Path(url.removeprefix("sqlite:///")).exists()


def compact(value: Any) -> str:
    """A value on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)
