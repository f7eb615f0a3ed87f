"""The peer of the ingest benchmark: mosquitto and a Node-RED flow that checks, appends to a file and publishes an answer.

Stock nodes do the work, as in a flow that a person would draw: parse, check against the same JSON schema, append (no fsync, no
index, no session, no subscriptions), answer once it is appended.

Node-RED is installed by npm into a cache folder when it is first needed; mosquitto comes from the system.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import say
from benchmarks.ssap_client import (
    FIRST_INSERT_ID,
    Framing,
    encode_connect,
    encode_publish,
    encode_subscribe,
    insert_template,
    insert_values,
)
from sib.ontology import compile_ontology
from sib.ontology.templates import template

VERSION = "4"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sofia2-benchmarks" / "node-red"
START_S = 60.0
SETTLE_S = 20.0
REQUESTS, ANSWERS = b"sofia2/requests/", b"sofia2/answers/"

UNPACK = """
msg.client = msg.topic.slice(16);
msg.sessionKey = msg.payload.sessionKey;
msg.payload = JSON.parse(msg.payload.body).data;
msg.schema = SCHEMA;
return msg;
"""
ANSWER = """
return {topic: "sofia2/answers/" + msg.client, payload: JSON.stringify({ok: true, sessionKey: msg.sessionKey})};
"""


class UnavailableError(Exception):
    """The peer cannot run here; says why."""


async def measure_peer(clients: int, window: int, seconds: float) -> float:
    """Answered requests per second of the peer under the load of the ingest benchmark.

    Raises:
        UnavailableError: a program is missing, or does not start.
    """
    program = _install()
    with tempfile.TemporaryDirectory(prefix="sofia2-peer-") as folder:
        mqtt_port, http_port = _free_port(), _free_port()
        broker = _start_mosquitto(Path(folder), mqtt_port)
        flow = _start_node_red(program, Path(folder), mqtt_port, http_port)
        try:
            return await _load(mqtt_port, clients, window, seconds)
        finally:
            for process in (flow, broker):
                process.terminate()
                process.wait()


def _install() -> list[str]:
    script = CACHE / "node_modules" / "node-red" / "red.js"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise UnavailableError("node is not installed")
    if not script.exists():
        if npm is None:
            raise UnavailableError("npm is not installed")
        say(f"installing Node-RED into {CACHE}")
        CACHE.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--prefix", str(CACHE), f"node-red@{VERSION}"],
            capture_output=True,
        )
        if done.returncode:
            raise UnavailableError(f"npm could not install node-red: {done.stderr.decode(errors='replace')[-300:]}")
    return [node, str(script)]


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _start_mosquitto(folder: Path, port: int) -> subprocess.Popen[bytes]:
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        raise UnavailableError("mosquitto is not installed (apt install mosquitto)")
    file = folder / "mosquitto.conf"
    file.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n"
        "max_queued_messages 0\npersistence false\nlog_type none\n"
    )
    return subprocess.Popen([program, "-c", str(file)], stderr=subprocess.DEVNULL)


def _start_node_red(program: list[str], folder: Path, mqtt_port: int, http_port: int) -> subprocess.Popen[bytes]:
    broker = {
        "id": "broker", "type": "mqtt-broker", "name": "", "broker": "127.0.0.1", "port": str(mqtt_port), "clientid": "",
        "autoConnect": True, "usetls": False, "protocolVersion": "4", "keepalive": "60", "cleansession": True,
    }  # fmt: skip
    unpack = UNPACK.replace("SCHEMA", json.dumps(_schema()))
    flow = [
        {"id": "tab", "type": "tab", "label": "ingest"},
        broker,
        {
            "id": "node-in", "type": "mqtt in", "z": "tab", "topic": "sofia2/requests/#", "qos": "1", "datatype": "utf8",
            "broker": "broker", "nl": False, "rap": True, "inputs": 0, "wires": [["node-parse"]],
        },
        {"id": "node-parse", "type": "json", "z": "tab", "property": "payload", "action": "obj", "wires": [["node-unpack"]]},
        {"id": "node-unpack", "type": "function", "z": "tab", "func": unpack, "outputs": 1, "wires": [["node-check"]]},
        {"id": "node-check", "type": "json", "z": "tab", "property": "payload", "action": "obj", "wires": [["node-file"]]},
        {
            "id": "node-file", "type": "file", "z": "tab", "filename": str(folder / "instances.jsonl"), "filenameType": "str",
            "appendNewline": True, "createDir": False, "overwriteFile": "false", "encoding": "none", "wires": [["node-answer"]],
        },
        {"id": "node-answer", "type": "function", "z": "tab", "func": ANSWER, "outputs": 1, "wires": [["node-out"]]},
        {"id": "node-out", "type": "mqtt out", "z": "tab", "topic": "", "qos": "1", "retain": "", "broker": "broker", "wires": []},
    ]  # fmt: skip
    (folder / "flows.json").write_text(json.dumps(flow))
    settings = {
        "uiPort": http_port,
        "uiHost": "127.0.0.1",
        "httpAdminRoot": False,
        "httpNodeRoot": False,
        "flowFile": "flows.json",
    }
    (folder / "settings.js").write_text(f"module.exports = {json.dumps(settings)};")
    command = [*program, "--userDir", str(folder), "--settings", str(folder / "settings.js")]
    with (folder / "node-red.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _schema() -> dict[str, Any]:
    """SensorPoint for the JSON node, which knows neither draft-04 nor formats nor keywords of one's own."""
    schema = compile_ontology("SensorPoint", template("SensorPoint").schema_text).schema
    point = json.loads(json.dumps(schema["datos"]))
    del point["properties"]["timestamp"]["properties"]["$date"]["format"]
    return {"type": "object", "properties": {"Sensor": point}, "required": ["Sensor"], "additionalProperties": False}


class _PeerKp(Framing):
    """One client: the next request goes out when an answer has come."""

    def __init__(self, number: int, window: int) -> None:
        super().__init__()
        self.number, self.window = number, window
        self.name = b"peer%d" % number
        self.sent = self.answered = 0
        self.ends_at_s = 0.0
        self._template = insert_template("7e1bd673-aede-406a-b28c-000000000000")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(encode_connect(self.name) + encode_subscribe([ANSWERS + self.name]))

    def packet(self, kind: int, body: memoryview | bytes) -> None:
        if kind == 3:
            self.answered += 1

    def settled(self) -> None:
        out, now = [], time.perf_counter()
        while self.sent - self.answered < self.window and now < self.ends_at_s:
            payload = self._template % insert_values(self.number, self.sent)
            out.append(encode_publish(payload, self.sent % 65_000 + FIRST_INSERT_ID, REQUESTS + self.name))
            self.sent += 1
        if out:
            self.transport.write(b"".join(out))


async def _load(port: int, clients: int, window: int, seconds: float) -> float:
    await _until_answered(port)
    loop = asyncio.get_running_loop()
    kps = []
    for number in range(clients):
        _, kp = await loop.create_connection(lambda n=number: _PeerKp(n, window), "127.0.0.1", port)  # type: ignore[misc]
        kps.append(kp)
    began = time.perf_counter()
    for kp in kps:
        kp.ends_at_s = began + seconds
        kp.settled()
    await asyncio.sleep(seconds)
    answered, elapsed_s = sum(kp.answered for kp in kps), time.perf_counter() - began
    deadline = time.perf_counter() + SETTLE_S
    while any(kp.answered < kp.sent for kp in kps) and time.perf_counter() < deadline:
        await asyncio.sleep(0.1)
    return answered / elapsed_s


async def _until_answered(port: int) -> None:
    """Wait until broker and flow answer one request."""
    loop, deadline = asyncio.get_running_loop(), time.perf_counter() + START_S
    while time.perf_counter() < deadline:
        try:
            _, kp = await loop.create_connection(lambda: _PeerKp(10**6, 1), "127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        kp.ends_at_s = time.perf_counter() + 0.5
        kp.settled()
        await asyncio.sleep(1)
        kp.transport.close()
        if kp.answered:
            return
    raise UnavailableError("mosquitto and Node-RED did not answer")
