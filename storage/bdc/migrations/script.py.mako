"""${message}

One change per migration: MySQL and Oracle have no transactional DDL.
"""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
