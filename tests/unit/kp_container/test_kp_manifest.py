"""``kp.toml``: what it means, and where it is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kp.manifest import Manifest, ManifestError, parse_manifest

WHOLE = b"""\
name = "KPThermostat"
instance = "kitchen"
entry = "app/main.py"
ontologies = ["Thermostat", "Alarm"]
schedule = "*/5 * * * *"
dependencies = ["numpy==2.3.1", "orjson >= 3.9, < 4", "uvicorn[standard]"]
arguments = ["--verbose"]

[resources]
memory_mb = 128
cpu = 0.25
disk_mb = 8
processes = 4
"""
LEAST = b'name = "A"\ninstance = "b"\nentry = "main.py"\n'


def test_all_that_it_may_say():
    found = parse_manifest(WHOLE)
    assert (found.name, found.instance, found.entry) == ("KPThermostat", "kitchen", "app/main.py")
    assert found.ontologies == ("Thermostat", "Alarm")
    assert found.dependencies == ("numpy==2.3.1", "orjson >= 3.9, < 4", "uvicorn[standard]")
    limits = found.limits
    assert (limits.memory_mb, limits.cpu, limits.disk_mb, limits.processes) == (128, 0.25, 8, 4)
    assert not found.is_node
    assert Manifest.from_json(found.to_json()) == found


def test_what_it_need_not_say():
    found = parse_manifest(LEAST)
    assert (found.ontologies, found.times, found.dependencies, found.limits.memory_mb) == (None, None, (), 256)
    assert Manifest.from_json(found.to_json()) == found
    assert parse_manifest(LEAST.replace(b"main.py", b"main.mjs")).is_node


@pytest.mark.parametrize(
    "lines", ['schedule = "10s"', 'every = "10s"', '[schedule]\nevery = "10s"', 'schedule = { every = "10s" }',
              'schedule = "every 10s"', "schedule = 'every = \"10s\"'"],
)  # fmt: skip
def test_a_period_may_be_said_in_several_ways(lines):
    assert parse_manifest(LEAST + lines.encode()).times.seconds == 10


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        (b'name = "A"\ninstance = \nentry = "main.py"\n', 2, "value"),
        (b'name = "A"\nentry = "main.py"\ninstance = "b', 3, "line"),
        (LEAST.replace(b'"A"', b"7"), 1, "name"),
        (LEAST.replace(b'"b"', b'"b:c"'), 2, "colon"),
        (LEAST.replace(b"main.py", b"../main.py"), 3, "entry"),
        (LEAST.replace(b"main.py", b"/main.py"), 3, "entry"),
        (LEAST.replace(b"main.py", b"main.sh"), 3, "entry"),
        (LEAST + b'ontologias = ["X"]', 4, "ontologies"),
        (LEAST + b'ontologies = "X"', 4, "list"),
        (LEAST + b'schedule = "61 * * * *"', 4, "minute"),
        (LEAST + b"every = 10", 4, "text"),
        (LEAST + b'[schedule]\neach = "1s"', 5, "each"),
        (LEAST + b"\n[resources]\nmemory_mb = 1", 6, "memory_mb"),
        (LEAST + b'\n[resources]\ncpu = "all"', 6, "cpu"),
        (LEAST + b"\n[resources]\nmemory = 64", 6, "memory_mb"),
        (LEAST + b"resources = { disk_mb = -1 }", 4, "disk_mb"),
        (LEAST + b'dependencies = ["--index-url=http://x/"]', 4, "package"),
        (LEAST + b'dependencies = ["x @ file:///etc"]', 4, "package"),
        (LEAST + b'dependencies = ["./x.whl"]', 4, "package"),
        (LEAST.replace(b".py", b".js") + b"[resources]\nmemory_mb = 64", 5, "Node"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(content, line, word):
    with pytest.raises(ManifestError) as refusal:
        parse_manifest(content)
    assert f"line {line}:" in refusal.value.message
    assert word in refusal.value.message


@pytest.mark.parametrize("key", [b"name", b"instance", b"entry"])
def test_what_is_missing_is_named(key):
    content = b"\n".join(line for line in LEAST.splitlines() if not line.startswith(key))
    with pytest.raises(ManifestError, match=key.decode()):
        parse_manifest(content)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    try:
        parse_manifest(content)
    except ManifestError:
        pass


@given(st.dictionaries(st.sampled_from(["name", "instance", "entry", "schedule", "every", "ontologies"]), st.text()))
def test_any_texts_are_read_or_refused(table):
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    try:
        parse_manifest("\n".join(lines).encode("utf-8", "surrogatepass"))
    except ManifestError:
        pass
