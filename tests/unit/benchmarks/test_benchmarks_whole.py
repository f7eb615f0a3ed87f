"""Benchmarks are run seldom: here their source is checked against the modules that they use, without importing those."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OURS = ("sib", "storage", "actors", "serve", "sofia2", "benchmarks", "tests")


def is_python(path):
    return path.is_file() and (path.suffix == ".py" or "python" in path.read_text()[:60])


PROGRAMS = sorted(path for path in (ROOT / "benchmarks").iterdir() if is_python(path))


def file_of(module):
    path = ROOT.joinpath(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.is_file()), None)


def is_module(name):
    return file_of(name) is not None or ROOT.joinpath(*name.split(".")).is_dir()


def bound_in(module):
    """Every name that a module binds at its top level, also below ``if`` and ``try``."""
    path = file_of(module)
    if path is None:
        return set()
    names = set()
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        else:
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            pending += [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
    return names


def missing(source):
    """What ``source`` takes from our packages that is not there: names of imports, and attributes of imported modules."""
    tree = ast.parse(source)
    modules, gone = {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            gone += [one.name for one in node.names if one.name.split(".")[0] in OURS and not is_module(one.name)]
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in OURS:
            continue
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            if is_module(whole):
                modules[alias.asname or alias.name] = whole
            elif alias.name not in bound_in(node.module):
                gone.append(whole)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            whole = modules[node.value.id]
            if node.attr not in bound_in(whole) and not is_module(f"{whole}.{node.attr}"):
                gone.append(f"{whole}.{node.attr}")
    return gone


def test_there_are_benchmarks():
    assert len(PROGRAMS) > 15


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_what_a_benchmark_imports_is_there(path):
    assert missing(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    ["from actors.rules import feed", "import actors.nothing", "from actors import watcher\nwatcher.Nothing = 1"],
)
def test_what_is_not_there_is_found(source):
    assert len(missing(source)) == 1
