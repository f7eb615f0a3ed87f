"""Ground rules of every test: the environment before Ray is imported, and where our packages come from."""

import atexit
import os
from pathlib import Path

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.pop("RAY_ADDRESS", None)

import pytest
from hypothesis import HealthCheck, settings

import sib

ROOT = Path(__file__).parent.parent
assert Path(sib.__file__).parent.parent == ROOT, f"sib comes from {sib.__file__}, not from the checkout"

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """The file of a BDC with all tables, made once, to be copied: the migrations take a quarter of a second."""
    from storage.bdc.bdc import open_bdc

    path = tmp_path_factory.mktemp("bdc") / "empty.db"
    made = open_bdc(f"sqlite:///{path}")
    made.upgrade()
    made.close()
    return path


@atexit.register
def _end_in_silence() -> None:
    """DuckDB's binding complains of its own leaks behind pytest's summary, when the interpreter has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
