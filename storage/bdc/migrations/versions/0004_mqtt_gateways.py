"""The MQTT sessions and messages belong to a gateway's listener, not to a client id alone."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
