"""In what the backends of the BDTR may differ, by name. Everything else is the same on all of them."""

from __future__ import annotations

from enum import StrEnum


class Capability(StrEnum):
    """What one backend can and another cannot. Tests assert each both ways."""

    OWN_CLOCK = "own_clock"
    """``$$NOW`` is the moment that the caller gives; else the clock of the database."""

    EXPLAINS_STEPS = "explains_steps"
    """``explain`` tells the steps of our planner; else those of the database, in its words."""

    SERVER = "server"
    """Several machines can use it; else it is a file of one machine."""


RELATIONAL = frozenset({Capability.OWN_CLOCK, Capability.EXPLAINS_STEPS})
RELATIONAL_SERVER = RELATIONAL | {Capability.SERVER}
MONGODB = frozenset({Capability.SERVER})
