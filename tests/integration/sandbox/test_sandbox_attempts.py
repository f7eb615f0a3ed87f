"""Nothing on the list of attempts gets anywhere inside; each of them does outside, so each can detect an escape."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import orjson  # noqa: F401 - bait: a package that must not be importable inside
import pytest
from attempts import ATTEMPTS
from bait import laid
from conftest import LIMITS, run, sandbox_of

SOURCE = (Path(__file__).parent / "attempts.py").read_bytes()
NOT_TRIED_OUTSIDE = {"terminal", "remount_root"}
"""Harmful there. That the system calls behind them are refused is what others show (``mount``, ``devices``)."""


@pytest.fixture(scope="module")
def bait(tmp_path_factory):
    with laid(tmp_path_factory.mktemp("bait")) as found:
        yield found


def results_inside(bait, level):
    inside = {**bait, "outside": False, "own": "/work" if level == 3 else bait["own"]}
    result = asyncio.run(run(sandbox_of(level), SOURCE, json.dumps(inside), limits=LIMITS))
    assert result.end.is_success, (result.end, result.errors)
    return json.loads(result.output)


@pytest.fixture(scope="module")
def full_results(bait):
    return results_inside(bait, 3)


@pytest.fixture(scope="module")
def fallback_results(bait):
    return results_inside(bait, 2)


@pytest.fixture(scope="module")
def outside_results(bait):
    program = Path(__file__).parent / "attempts.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), json.dumps(bait)],
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt_is_stopped_at_the_full_level(full_results, name):
    assert full_results[name] is None


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt_is_stopped_at_the_fallback_level(fallback_results, name):
    assert fallback_results[name] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may not do all of it outside either")
@pytest.mark.parametrize("name", sorted(set(ATTEMPTS) - NOT_TRIED_OUTSIDE))
def test_attempt_detects_what_is_possible_outside(outside_results, name):
    assert outside_results[name] is not None
