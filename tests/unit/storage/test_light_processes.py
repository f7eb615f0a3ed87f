"""What every process loads is paid at every start and in every actor: the heavy parts are loaded by those who use them."""

import subprocess
import sys

import pytest

HEAVY = {"lark", "sib.cep.engine", "duckdb", "pyarrow"}


@pytest.mark.parametrize("module", ["actors.partition", "actors.sessions", "actors.gateway.nodes", "sofia2.launch"])
def test_a_process_without_cep_and_history_loads_neither(module, tmp_path):
    program = f"""
import sys
import {module}
from storage.bdc.bdc import open_bdc
bdc = open_bdc("sqlite:///{tmp_path}/bdc.db")
bdc.upgrade()
bdc.catalog()
print(*{HEAVY!r}.intersection(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
