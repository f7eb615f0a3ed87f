"""The reference pages are those of the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_reference_pages_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "gen_docs.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
