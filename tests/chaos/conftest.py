"""The platform of the kill tests: one serves all of them, each leaves it healed."""

import pytest

from benchmarks.platform_under_test import PlatformUnderTest


@pytest.fixture(scope="session")
def victim(tmp_path_factory):
    """The platform whose processes are killed."""
    platform = PlatformUnderTest(tmp_path_factory.mktemp("victim") / "data")
    platform.start()
    yield platform
    platform.stop()
