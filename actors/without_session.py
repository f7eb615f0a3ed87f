"""Messages that bring a token and need no session: what a device is configured with, and what it reports."""

from __future__ import annotations

import time
from typing import Any

from actors.session_changes import SessionChanges, moment
from sib.access import Identity, permission_name
from sib.errors import AuthenticationError
from storage.bdc.bdc import Bdc
from storage.bdc.records import LogRecord

WITHOUT_SESSION = ("configure", "check", "report")
"""The requests to a session shard that are methods here."""


class WithoutSession:
    """Each request checks the token anew.

    Raises:
        AuthenticationError: it is wrong, or the KP takes ciphered messages only.
    """

    def __init__(self, bdc: Bdc) -> None:
        self._bdc = bdc

    def configure(
        self, batch: SessionChanges, gateway: str, kp: str, instance: str, token: str, is_ciphered: bool = True
    ) -> dict[str, Any]:
        """What CONFIG answers: the assets and the ontologies of the KP."""
        identity = self._by_token(kp, token, is_ciphered)
        catalog = self._bdc.catalog()
        return {
            "lasset": [_asset_entry(row) for row in self._bdc.assets(identity.user) if row.get("kp") in (kp, None, "")],
            "lontologia": [
                {
                    "identificacion": name,
                    "esquemajson": catalog.ontologies[name].schema_text,
                    "tipopermiso": permission_name(rights),
                }
                for name, rights in sorted(self._bdc.rights(kp, identity.user).items())
                if name in catalog.ontologies
            ],
        }

    def check(
        self, batch: SessionChanges, gateway: str, kp: str, token: str, is_ciphered: bool = True
    ) -> tuple[str, str, str]:
        """Returns KP, user and credential, as they are checked again later."""
        identity = self._by_token(kp, token, is_ciphered)
        return kp, identity.user, identity.credential

    def _by_token(self, kp: str, token: str, is_ciphered: bool) -> Identity:
        """Who sends a message that needs no session."""
        identity = self._bdc.identify(kp, token)
        if identity.cipher_only and not is_ciphered:
            raise AuthenticationError(f"the KP {kp!r} takes ciphered messages only: encipher them with its key")
        return identity

    def report(
        self,
        batch: SessionChanges,
        gateway: str,
        kind: str,
        kp: str,
        instance: str,
        token: str,
        fields: dict[str, Any],
        is_ciphered: bool = True,
    ) -> None:
        """STATUS, LOCATION, ERROR or LOG of a device, into the process log."""
        identity = self._by_token(kp, token, is_ciphered)
        summary = str(fields.get("message") or fields.get("status") or "")[:200]
        batch.reports.append(LogRecord(kind, moment(time.time()), summary, identity.user, kp, instance, fields))


def _asset_entry(row: dict[str, Any]) -> dict[str, Any]:
    """An asset as CONFIG lists it. Source: Sofia2 java-api ssap/body/config/message."""
    properties = row.get("properties") or {}
    return {
        "identificacion": row["identificacion"],
        "latitud": properties.get("latitud"),
        "longitud": properties.get("longitud"),
        "propiedades": properties,
        "propiedadescfg": {},
        "isNative": False,
        "jsonAssets": None,
    }
