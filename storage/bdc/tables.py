"""The configuration as tables for BDC queries: what ``select … from Asset`` reads. No table here holds a secret.

Column names are Spanish and lower-case, as in the configuration database of the original.
Source: Sofia2 clients' BDC queries (``Asset``: identificacion, descripcion, tipo).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sib.errors import NotFoundError
from storage.bdc.configuration import Configuration
from storage.bdc.records import AssetRecord

Rows = list[dict[str, Any]]


def asset_rows(configuration: Configuration, owner: str | None) -> Rows:
    """The table ``Asset``: of one user, or of all (None)."""
    return [_asset_row(asset) for asset in configuration.assets.all(owner)]


def table_rows(configuration: Configuration, name: str) -> Rows:
    """Any table by its name in any case.

    Raises:
        NotFoundError: there is no such table, or it cannot be read because it holds secrets.
    """
    rows_of = _TABLES.get(name.lower())
    if rows_of is None:
        names = ", ".join(sorted(_TABLES))
        raise NotFoundError(f"There is no configuration table {name!r} that can be read: choose among {names}.")
    return rows_of(configuration)


def _asset_row(asset: AssetRecord) -> dict[str, Any]:
    return {
        "identificacion": asset.identificacion,
        "descripcion": asset.descripcion,
        "tipo": asset.tipo,
        "propietario": asset.owner,
        "kp": asset.kp,
        "propiedades": dict(asset.properties),
    }


def _all_assets(configuration: Configuration) -> Rows:
    return asset_rows(configuration, None)


def _users(configuration: Configuration) -> Rows:
    return [
        {
            "identificacion": user.name,
            "rol": user.role.value,
            "email": user.email,
            "activo": user.active,
            "fechaalta": user.created_at,
        }
        for user in configuration.users.all()
    ]


def _ontologies(configuration: Configuration) -> Rows:
    return [
        {
            "identificacion": ontology.name,
            "descripcion": ontology.description,
            "propietario": ontology.owner,
            "activa": ontology.active,
            "publica": ontology.public,
            "padre": ontology.parent,
            "version": ontology.version,
            "plantilla": ontology.template,
            "esquemajson": ontology.schema_text,
            "fechaalta": ontology.created_at,
        }
        for ontology in configuration.ontologies.all()
    ]


def _permissions(configuration: Configuration) -> Rows:
    return [
        {"ontologia": ontology.name, "usuario": user, "tipopermiso": permission.value}
        for ontology in configuration.ontologies.all()
        for user, permission in ontology.permissions.items()
    ]


def _kps(configuration: Configuration) -> Rows:
    return [
        {
            "identificacion": kp.name,
            "descripcion": kp.description,
            "propietario": kp.owner,
            "ontologias": sorted(kp.ontologies),
            "solocifrado": kp.cipher_only,
            "metainformacion": dict(kp.meta),
            "fechaalta": kp.created_at,
        }
        for kp in configuration.kps.all()
    ]


def _instances(configuration: Configuration) -> Rows:
    return [
        {
            "identificacion": instance.name,
            "kp": instance.kp,
            "estatica": instance.static,
            "ultimaip": instance.last_address,
            "ultimaconexion": instance.last_seen_at,
        }
        for instance in configuration.instances.all()
    ]


def _queries(configuration: Configuration) -> Rows:
    return [
        {
            "identificacion": query.name,
            "ontologia": query.ontology,
            "tipo": query.type,
            "query": query.text,
            "parametros": dict(query.params),
        }
        for query in configuration.queries.all()
    ]


def _templates(configuration: Configuration) -> Rows:
    return [
        {
            "identificacion": template.name,
            "version": template.version,
            "categoria": template.category,
            "descripcion": template.description,
            "esquemajson": template.schema_text,
        }
        for template in configuration.templates.all()
    ]


_TABLES: dict[str, Callable[[Configuration], Rows]] = {
    "asset": _all_assets,
    "usuario": _users,
    "ontologia": _ontologies,
    "permiso": _permissions,
    "kp": _kps,
    "instanciakp": _instances,
    "consulta": _queries,
    "plantilla": _templates,
}
