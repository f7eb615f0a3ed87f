"""A platform that does not run as root: the same attempts, the supervisor and its other processes being that user's.

With the system's Python, because such a user may not be able to read ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest
from attempts import ATTEMPTS

ROOT = Path(__file__).parents[3]
USER = 12345
PYTHON = "/usr/bin/python3"
VARIABLES = {
    "PYTHONPATH": f"{ROOT}:{Path(orjson.__file__).parent.parent}",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",
    "PATH": "/usr/bin:/bin",
}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="becoming another user needs root and setpriv"
)


def as_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return subprocess.run(
        [*user, PYTHON, *arguments], env=VARIABLES, capture_output=True, text=True, cwd="/", timeout=60
    )


@pytest.fixture(scope="module")
def packages_are_usable():
    if as_user("-c", "import orjson, typer, pyseccomp").returncode:
        pytest.skip("the system's Python, or a user who is not root, cannot use our packages")


@pytest.mark.usefixtures("packages_are_usable")
@pytest.mark.parametrize("level", [3, 2])
def test_self_test(level):
    done = as_user("-P", "-m", "sofia2.sandbox", "check", "--level", str(level))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=[3, 2], ids=["full", "fallback"])
def results(request, packages_are_usable, tmp_path_factory):
    folder = Path("/tmp") / f"sofia2-sandbox-user-{os.getpid()}-{request.param}"
    folder.mkdir()
    os.chown(folder, USER, USER)
    try:
        done = as_user(str(Path(__file__).parent / "attempts_as_user.py"), str(request.param), str(folder))
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt_is_stopped(results, name):
    assert results[name] is None
