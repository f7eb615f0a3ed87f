"""Unit tests are pure: importing Ray here is an error."""

import sys
from importlib.abc import MetaPathFinder

import pytest


class _NoRay(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "ray" or name.startswith("ray."):
            raise ImportError("unit tests must not import Ray: move the test to tests/integration")
        return


@pytest.fixture(autouse=True)
def _forbid_ray(monkeypatch):
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoRay(), *sys.meta_path])
