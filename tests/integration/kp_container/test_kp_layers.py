"""Dependencies of KPs: from wheels of the wheelhouse only, without running anything of them."""

import stat
import zipfile

import pytest

from actors.kp.layers import install, layer_name
from actors.kp.manifest import ManifestError


def make_wheel(folder, name, requires=()):
    info = f"{name}-1.0.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0", *(f"Requires-Dist: {each}" for each in requires)]
    files = {
        f"{name}.py": "VALUE = 7\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def wheelhouse(tmp_path):
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    make_wheel(folder, "basepart")
    make_wheel(folder, "toppart", ["basepart>=1"])
    return folder


def test_what_a_dependency_needs_is_installed_with_it_once(wheelhouse, tmp_path):
    name = layer_name(["toppart"], wheelhouse)
    layer = install(name, ["toppart"], wheelhouse, tmp_path / "layers")
    assert {"toppart.py", "basepart.py"} <= {path.name for path in layer.iterdir()}
    assert all(path.stat().st_mode & stat.S_IROTH for path in layer.rglob("*"))
    assert install(name, ["toppart"], wheelhouse, tmp_path / "layers") == layer
    assert [path.name for path in (tmp_path / "layers").iterdir()] == [name]


def test_what_is_not_there_is_told(wheelhouse, tmp_path):
    with pytest.raises(ManifestError, match="elsewhere"):
        install("x", ["elsewhere"], wheelhouse, tmp_path / "layers")
    with pytest.raises(ManifestError, match="no wheelhouse"):
        install("x", ["toppart"], tmp_path / "nowhere", tmp_path / "layers")
    assert not list((tmp_path / "layers").iterdir())


def test_a_source_package_is_not_built(wheelhouse, tmp_path):
    (wheelhouse / "evil-1.0.tar.gz").write_bytes(b"not even looked at")
    with pytest.raises(ManifestError, match="evil"):
        install("x", ["evil"], wheelhouse, tmp_path / "layers")


def test_the_name_says_what_is_in_it(wheelhouse):
    name = layer_name(["toppart"], wheelhouse)
    assert name == layer_name(["toppart"], wheelhouse)
    assert name != layer_name(["basepart"], wheelhouse)
    make_wheel(wheelhouse, "other")
    assert name != layer_name(["toppart"], wheelhouse)
    assert layer_name([], wheelhouse) == ""
    assert install("", [], wheelhouse, wheelhouse) is None
