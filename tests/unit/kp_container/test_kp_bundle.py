"""The files of a KP: read, packed and laid out."""

import io
import stat
import zipfile

import pytest

from actors.kp import bundle
from actors.kp.bundle import lay_out, manifest_of, pack, read_files
from actors.kp.manifest import ManifestError

TOML = 'name = "A"\ninstance = "b"\nentry = "app/main.py"\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app" / "__pycache__").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name, text in {
        "kp.toml": TOML, "app/main.py": "print(1)", "app/__pycache__/main.pyc": "x", ".git/config": "x", ".env": "x",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


def zipped(files, mode=0):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, text)
    return packed.getvalue()


def test_a_folder_without_what_is_hidden_and_compiled(folder):
    files = read_files(folder)
    assert set(files) == {"kp.toml", "app/main.py"}
    assert manifest_of(files).entry == "app/main.py"


def test_equal_files_are_the_same_bundle_and_are_laid_out_once(folder, tmp_path_factory):
    content = pack(read_files(folder))
    (folder / "app" / "main.py").touch()
    assert pack(read_files(folder)) == content
    target = tmp_path_factory.mktemp("bundles")
    laid = lay_out(content, target)
    assert (laid / "app" / "main.py").read_text() == "print(1)"
    assert stat.S_IMODE(laid.stat().st_mode) == 0o755
    assert stat.S_IMODE((laid / "app" / "main.py").stat().st_mode) == 0o644
    assert lay_out(content, target) == laid
    assert [path.name for path in target.iterdir()] == [laid.name]
    (folder / "app" / "main.py").write_text("print(2)")
    assert pack(read_files(folder)) != content


def test_a_zip_file_of_the_files_or_of_the_folder(tmp_path):
    files = {"kp.toml": TOML, "app/main.py": "print(1)"}
    for content in (zipped(files), zipped({f"kp-1/{name}": text for name, text in files.items()})):
        (tmp_path / "kp.zip").write_bytes(content)
        assert set(read_files(tmp_path / "kp.zip")) == set(files)


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "..\\out"])
def test_a_zip_file_that_would_write_elsewhere_is_refused(tmp_path, name):
    (tmp_path / "kp.zip").write_bytes(zipped({"kp.toml": TOML, name: "x"}))
    with pytest.raises(ManifestError, match="outside"):
        read_files(tmp_path / "kp.zip")


def test_links_are_refused(folder, tmp_path):
    (tmp_path / "kp.zip").write_bytes(zipped({"kp.toml": TOML, "link": "/etc/shadow"}, mode=0o120777))
    with pytest.raises(ManifestError, match="link"):
        read_files(tmp_path / "kp.zip")
    (folder / "kp.zip").unlink()
    (folder / "link").symlink_to("/etc/shadow")
    with pytest.raises(ManifestError, match="link"):
        read_files(folder)


def test_bounds(folder, monkeypatch):
    monkeypatch.setattr(bundle, "FILES_MAX", 1)
    with pytest.raises(ManifestError, match="more than 1 files"):
        read_files(folder)
    monkeypatch.setattr(bundle, "FILES_MAX", 10)
    monkeypatch.setattr(bundle, "BYTES_MAX", 10)
    with pytest.raises(ManifestError, match="larger"):
        read_files(folder)
    monkeypatch.setattr(bundle, "PACKED_BYTES_MAX", 10)
    with pytest.raises(ManifestError, match="packed"):
        pack({"a": b"x"})


def test_a_folder_that_is_none_or_has_not_what_it_needs(tmp_path):
    with pytest.raises(ManifestError, match="no folder"):
        read_files(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"no kp\.toml"):
        manifest_of(read_files(tmp_path))
    (tmp_path / "kp.toml").write_text(TOML)
    with pytest.raises(ManifestError, match=r"line 3: entry: there is no file app/main\.py"):
        manifest_of(read_files(tmp_path))
