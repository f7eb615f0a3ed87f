"""A load test of a running platform: MQTT KPs in a process of their own, and a live view in this one.

The generator runs as ``python -m sofia2.load``: it reads its plan from the standard input (no token on a command line) and
reports on the standard output, a JSON object a line. Packets are made once and patched, so that it costs little itself.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sib.errors import StoreUnavailableError
from sib.mqtt import codec, wire
from sib.mqtt.framing import decode_length
from sib.mqtt.kp_topics import ANSWER, own_topic

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sofia2.settings import Settings

ONTOLOGY, KP = "LoadTest", "KPLoadTest"
REPORT_S = 0.5
CONNECT_S = 30.0
LATENCIES_MAX = 1_000_000
SCHEMA = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "title": "LoadTest Schema",
    "type": "object",
    "required": [ONTOLOGY],
    "properties": {ONTOLOGY: {"$ref": "#/datos"}},
    "datos": {
        "type": "object",
        "required": ["client", "number", "value"],
        "properties": {
            "client": {"type": "integer"},
            "number": {"type": "integer"},
            "value": {"type": "number"},
            "text": {"type": "string"},
        },
    },
}
FILLER = "x" * 200


@dataclass(frozen=True)
class LoadPlan:
    """What the generator does."""

    url: str
    kp: str
    token: str = field(repr=False)
    ontology: str
    clients: int
    in_flight: int
    seconds: float


def prepare(settings: Settings) -> Iterator[str]:
    """Create the ontology and the KP of the test, as far as they are missing."""
    from sofia2.demo import ensure

    return ensure(settings, {"name": ONTOLOGY, "description": "Instances of 'sofia2 load'", "schema": SCHEMA}, KP)


def run(plan: LoadPlan, console: Console) -> dict[str, Any]:
    """Run the generator and show what it reports; the totals.

    Raises:
        StoreUnavailableError: the generator could not do its work.
    """
    from rich.live import Live

    command = [sys.executable, "-m", "sofia2.load"]
    generator = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert generator.stdin is not None
    assert generator.stdout is not None
    rates: deque[float] = deque(maxlen=60)
    result: dict[str, Any] = {}
    try:
        generator.stdin.write(json.dumps(asdict(plan)))
        generator.stdin.close()
        with Live(console=console, refresh_per_second=4) as live:
            for line in generator.stdout:
                report = json.loads(line)
                if report["event"] == "rate":
                    rates.append(report["rate"])
                    live.update(_view(report, rates, plan))
                elif report["event"] == "failed":
                    raise StoreUnavailableError(f"The load test could not be run: {report['text']}")
                else:
                    result = report["result"]
    finally:
        if generator.poll() is None:
            generator.terminate()
        generator.wait()
    if not result:
        raise StoreUnavailableError("The load generator ended before its time; try again.")
    return result


def _view(report: dict[str, Any], rates: deque[float], plan: LoadPlan) -> RenderableType:
    from rich import box
    from rich.table import Table

    bars = " ▁▂▃▄▅▆▇█"
    highest = max(rates) or 1
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{plan.clients} KPs, {plan.in_flight} in flight each", title_justify="left"
    )
    for column in ("elapsed", "stored", "per second", "p50", "p99", "refused", ""):
        table.add_column(column, justify="right" if column else "left")
    table.add_row(
        f"{report['elapsed_s']:.1f} s",
        f"{report['stored']:,}",
        f"{report['rate']:,.0f}",
        f"{report['p50_ms']:.1f} ms",
        f"{report['p99_ms']:.1f} ms",
        str(report["refused"]),
        "".join(bars[round(rate / highest * (len(bars) - 1))] for rate in rates),
    )
    return table


# ---------------------------------------------------------------------- the generator's process


@dataclass
class Totals:
    """What all clients have seen."""

    stored: int = 0
    refused: int = 0
    first_refusal: str = ""
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_MAX))


class LoadClient(asyncio.Protocol):
    """One KP: CONNECT, SUBSCRIBE to its answers, JOIN, then INSERTs with a window of unanswered ones."""

    def __init__(self, plan: LoadPlan, number: int, totals: Totals) -> None:
        loop = asyncio.get_running_loop()
        self._plan, self._number, self._totals = plan, number, totals
        self._client_id = f"load{number}"
        self._rest = b""
        self._sent_at: deque[float] = deque()
        self._count = 0
        self._head = b""
        self.is_loading = False
        self.is_lost = False
        self.joined: asyncio.Future[None] = loop.create_future()
        self.idle = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        return len(self._sent_at)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        head = wire.encode_string("MQTT") + bytes((codec.MQTT_3_1_1, 2)) + wire.encode_uint16(0)
        topic = wire.encode_string(own_topic(ANSWER, self._client_id))
        join = {"instance": f"{self._plan.kp}:load{self._number}", "token": self._plan.token}
        message = {"direction": "REQUEST", "messageType": "JOIN", "sessionKey": None, "body": join}
        transport.write(
            codec.encode_packet(codec.CONNECT, 0, head, wire.encode_string(self._client_id))
            + codec.encode_packet(codec.SUBSCRIBE, 2, wire.encode_uint16(1), topic, b"\0")
            + self._publish(json.dumps(message).encode())
        )

    @staticmethod
    def _publish(payload: bytes) -> bytes:
        return codec.encode_packet(codec.PUBLISH, 2, wire.encode_string(""), wire.encode_uint16(1), payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.idle.set()
        if not self.joined.done():
            self.joined.set_exception(ConnectionError("the platform closed the connection"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        while at < len(data):
            length, start = decode_length(data, at + 1)
            if length < 0 or start + length > len(data):
                break
            if data[at] >> 4 == codec.PUBLISH:
                topic_bytes = data[start] << 8 | data[start + 1]
                self._answered(data[start + 2 + topic_bytes : start + length])
            at = start + length
        self._rest = data[at:]
        if self.is_loading:
            self.fill()
        if not self._sent_at:
            self.idle.set()

    def _answered(self, payload: bytes) -> None:
        if not self.joined.done():
            self._join_answered(payload)
            return
        self._totals.latencies_s.append(time.perf_counter() - self._sent_at.popleft())
        if b'"ok":true' in payload:
            self._totals.stored += 1
        else:
            self._totals.refused += 1
            self._totals.first_refusal = self._totals.first_refusal or payload.decode("utf-8", "replace")[:500]

    def _join_answered(self, payload: bytes) -> None:
        answer = json.loads(payload)
        if not answer["body"]["ok"]:
            self.joined.set_exception(ConnectionError(str(answer["body"]["error"])))
            return
        message = {
            "direction": "REQUEST",
            "messageType": "INSERT",
            "ontology": self._plan.ontology,
            "sessionKey": answer["sessionKey"],
            "body": {"query": None, "queryType": "NATIVE", "data": "DATA"},
        }
        self._head, self._tail = json.dumps(message).encode().split(b'"DATA"')
        self.joined.set_result(None)

    def fill(self) -> None:
        """Send as many INSERTs as may wait."""
        packets, now = [], time.perf_counter()
        while len(self._sent_at) < self._plan.in_flight:
            self._count += 1
            instance = b'{"%s":{"client":%d,"number":%d,"value":%d.5,"text":"%s"}}' % (
                self._plan.ontology.encode(), self._number, self._count, self._count % 100, FILLER.encode(),
            )  # fmt: skip
            packets.append(self._publish(self._head + instance + self._tail))
            self._sent_at.append(now)
        if packets:
            self.idle.clear()
            self.transport.write(b"".join(packets))


async def generate(plan: LoadPlan) -> None:
    """Carry out a plan and report on standard output."""
    totals = Totals()
    address = urlsplit(plan.url)
    clients = [LoadClient(plan, number, totals) for number in range(plan.clients)]
    async with asyncio.timeout(CONNECT_S):
        for client in clients:
            await asyncio.get_running_loop().create_connection(
                partial(_same, client), str(address.hostname), address.port or 1883
            )
        await asyncio.gather(*(client.joined for client in clients))
    began = time.perf_counter()
    for client in clients:
        client.is_loading = True
        client.fill()
    before = 0
    while (elapsed := time.perf_counter() - began) < plan.seconds:
        await asyncio.sleep(min(REPORT_S, plan.seconds - elapsed))
        elapsed = time.perf_counter() - began
        rate, before = (totals.stored - before) / REPORT_S, totals.stored
        _report("rate", rate=rate, elapsed_s=elapsed, stored=totals.stored, refused=totals.refused, **_latency(totals))
    for client in clients:
        client.is_loading = False
    await asyncio.wait([asyncio.ensure_future(client.idle.wait()) for client in clients], timeout=CONNECT_S)
    elapsed = time.perf_counter() - began
    _report(
        "done",
        result={
            "stored": totals.stored,
            "per_second": round(totals.stored / elapsed),
            "refused": totals.refused,
            "lost": sum(client.waiting for client in clients),
            **{name: round(value, 2) for name, value in _latency(totals).items()},
            "seconds": round(elapsed, 2),
            **({"first_refusal": totals.first_refusal} if totals.refused else {}),
        },
    )
    for client in clients:
        client.transport.close()


def _same(client: LoadClient) -> LoadClient:
    return client


def _latency(totals: Totals) -> dict[str, float]:
    recent = list(totals.latencies_s)[-20_000:]
    if len(recent) < 2:
        return {"p50_ms": 0.0, "p99_ms": 0.0}
    cuts = statistics.quantiles(recent, n=100)
    return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}


def _report(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def main() -> None:
    """Entry of the generator."""
    plan = LoadPlan(**json.loads(sys.stdin.read()))
    try:
        asyncio.run(generate(plan))
    except (OSError, TimeoutError) as error:
        _report("failed", text=str(error) or "not all KPs could join in time")
        sys.exit(1)


if __name__ == "__main__":
    main()
