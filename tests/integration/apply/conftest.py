"""A BDC and a way to apply texts to it."""

import shutil

import pytest
from argon2 import PasswordHasher

from sofia2.apply import apply_files
from storage.bdc.bdc import open_bdc


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch):
    """argon2 with the least cost: its real cost is not what these tests are about."""
    monkeypatch.setattr("storage.bdc.passwords._HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def bdc(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "bdc.db")
    opened = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    yield opened
    opened.close()


@pytest.fixture
def apply(bdc, tmp_path):
    """Apply texts, each as a file of its own (a.yaml, b.yaml, …)."""

    def apply_texts(*texts, **options):
        paths = []
        for name, text in zip("abcdef", texts, strict=False):
            path = tmp_path / f"{name}.yaml"
            path.write_text(text, encoding="utf-8", newline="")
            path.chmod(0o600)
            paths.append(path)
        return apply_files(bdc, paths, **options)

    return apply_texts
