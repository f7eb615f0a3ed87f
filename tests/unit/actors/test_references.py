"""References to actors that are not there."""

import pytest

from actors import runtime
from actors.runtime import ActorGoneError, Ref


@pytest.fixture
def nobody(monkeypatch):
    def gone(name):
        raise ActorGoneError(f"the actor {name} is not running")

    monkeypatch.setattr(runtime, "_handle", gone)
    return Ref("nobody")


def test_telling_somebody_who_is_not_there_is_no_error(nobody):
    """A partition tells after its commit: that a watcher has ended is none of the writer's business."""
    nobody.tell("events", "partition-0", None)
