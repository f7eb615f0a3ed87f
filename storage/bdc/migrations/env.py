"""Run by alembic inside ``storage.bdc.schema``: the connection comes from the caller, nothing is read from the disk."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import BigInteger, DateTime, String

from storage.bdc.all_models import metadata


def render_item(kind: str, item: Any, _autogen: object) -> str | Literal[False]:
    """Write our portable types by their names into a generated migration."""
    if kind != "type":
        return False
    if type(item) is String:
        return f"types.name_type({item.length})"
    if type(item) is DateTime:
        return "types.moment_type()"
    return "types.key_type()" if type(item) is BigInteger and "sqlite" in item._variant_mapping else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    render_item=render_item,
    user_module_prefix="types.",
)
with context.begin_transaction():
    context.run_migrations()
