"""One platform with the module process for all tests of this folder."""

import subprocess
import sys

import pytest

from benchmarks.platform_under_test import PlatformUnderTest
from benchmarks.report import ROOT
from storage.open import open_bdtr
from tests.moving import until_heard

APPLY = """
sofia2: 1
users:
  - {name: ana, password: ana-ana-ana, role: USUARIO}
  - {name: eva, password: eva-eva-eva, role: USUARIO}
ontologies:
  - {name: Moved, owner: benchmark, template: SensorPoint, window: 1s, indexes: [Sensor.assetId]}
  - {name: Deleted, owner: benchmark, template: SensorPoint, window: 1s}
  - {name: Grouped, owner: benchmark, template: SensorPoint, window: 1s}
  - {name: Endless, owner: benchmark, template: SensorPoint, permissions: {ana: INSERT, eva: QUERY}}
processes:
  - {name: delete, type: transfer, ontology: Deleted, action: delete}
  - name: group
    type: transfer
    ontology: Grouped
    group: {every: 1s, by: [assetId], values: {measure: avg}}
    prepare: [{$set: {Sensor.measure: {$multiply: [$Sensor.measure, 2]}}}]
"""


class Platform(PlatformUnderTest):
    """With commands whose exit status is looked at."""

    def exit_of(self, *arguments):
        """``sofia2 ... --data DATA``: exit status and what it wrote on standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "sofia2", *arguments, f"--data={self.data}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        return done.returncode, done.stderr

    def until_heard(self):
        """What is stored may move."""
        for file in (self.data / "bdtr").glob("*.db"):
            store = open_bdtr(f"sqlite:{file}", writer=False)
            until_heard(store)
            store.close()

    def transfer(self, ontology):
        self.until_heard()
        return self.command("process", "run", "transfer", f"--ontology={ontology}")["counts"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    platform = Platform(tmp_path_factory.mktemp("processes") / "data")
    platform.start("--modules=sib,process")
    file = platform.data.with_suffix(".processes.yaml")
    file.touch(mode=0o600)
    file.write_text(APPLY)
    platform.command("apply", str(file))
    yield platform
    platform.stop()
