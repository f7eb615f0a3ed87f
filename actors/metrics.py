"""Counters and latencies of one process, cheap enough for the hot path; names and help texts of every metric.

Each actor keeps plain numbers and gives them with its statistics; the platform adds them up for ``/metrics``, and they go to
``ray.util.metrics`` from there. Names follow Prometheus: ``sofia2_..._total``, ``..._seconds``, ``..._bytes``.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]

HELP = {
    "sofia2_messages_total": "SSAP requests by gateway, operation and result",
    "sofia2_request_seconds": "Time from a request to its answer, by gateway and operation",
    "sofia2_ignored_payloads_total": "Payloads that are no SSAP request and get no answer",
    "sofia2_indications_total": "INDICATIONs sent",
    "sofia2_indications_dropped_total": "INDICATIONs whose session was not connected, or whose queue was full",
    "sofia2_connections": "Open connections by transport",
    "sofia2_leases": "Sessions known to a gateway",
    "sofia2_subscriptions": "Subscriptions known to a gateway",
    "sofia2_queue_depth": "Writes waiting for a partition",
    "sofia2_write_retries_total": "Batches that were sent again because a partition could not decide",
    "sofia2_partition_commits_total": "Committed batches",
    "sofia2_partition_writes_total": "Writes decided by a partition",
    "sofia2_partition_rejects_total": "Writes refused by a partition (schema, duplicate, ...)",
    "sofia2_partition_repeats_total": "Batches that came again and were not stored twice",
    "sofia2_partition_busy_seconds_total": "Time a partition spent on batches",
    "sofia2_sessions": "Sessions of a shard",
    "sofia2_joins_total": "JOINs",
    "sofia2_join_failures_total": "JOINs refused",
    "sofia2_queries_total": "Queries run",
    "sofia2_queries_capped_total": "Queries whose limit was cut to the row cap",
    "sofia2_actor_restarts_total": "Restarts of an actor",
    "sofia2_process_runs_total": "Runs of processes: transfers, cleaning, compaction, loads",
    "sofia2_process_failures_total": "Runs of processes that failed",
    "sofia2_process_busy_seconds_total": "Time that runs of processes took",
    "sofia2_process_moved_instances_total": "Instances moved to the history",
    "sofia2_mqtt_events_total": "What happened on the MQTT listeners, by event",
}


class GatewayMetrics:
    """What one gateway counts."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.messages: Counter[tuple[str, str]] = Counter()
        self.buckets: dict[str, list[int]] = {}
        self.sums_s: dict[str, float] = {}
        self.stored = 0
        self.ignored = 0
        self.dropped = 0

    def count(self, operation: str, result: str, seconds: float | None = None) -> None:
        """One answered request; ``result`` is ``ok`` or the error's code."""
        self.messages[operation, result] += 1
        if seconds is not None:
            self.observe(operation, seconds)

    def observe(self, operation: str, seconds: float, requests: int = 1) -> None:
        """The time that some requests took; the INSERTs of a batch share that of their call."""
        buckets = self.buckets.get(operation)
        if buckets is None:
            buckets = self.buckets[operation] = [0] * (len(LATENCY_BOUNDS_S) + 1)
        buckets[bisect.bisect_left(LATENCY_BOUNDS_S, seconds)] += requests
        self.sums_s[operation] = self.sums_s.get(operation, 0.0) + seconds * requests

    def count_malformed(self) -> None:
        self.messages["NONE", "ssap.malformed"] += 1

    def samples(self) -> Samples:
        """Everything as Prometheus samples."""
        gateway = ("gateway", self.kind)
        samples: Samples = {
            ("sofia2_ignored_payloads_total", (gateway,)): self.ignored,
            ("sofia2_indications_dropped_total", (gateway,)): self.dropped,
        }
        messages = self.messages + Counter({("INSERT", "ok"): self.stored})
        for (operation, result), count in messages.items():
            labels = (gateway, ("operation", operation), ("result", result))
            samples["sofia2_messages_total", labels] = count
        for operation, buckets in self.buckets.items():
            total = 0
            for bound, count in zip((*map(str, LATENCY_BOUNDS_S), "+Inf"), buckets, strict=True):
                total += count
                labels = (gateway, ("operation", operation), ("le", bound))
                samples["sofia2_request_seconds_bucket", labels] = total
            whole = (gateway, ("operation", operation))
            samples["sofia2_request_seconds_count", whole] = total
            samples["sofia2_request_seconds_sum", whole] = self.sums_s[operation]
        return samples


def format_metrics(samples: Mapping[tuple[str, Labels], float]) -> str:
    """Samples in the Prometheus text format, sorted, with help and type lines."""
    lines: list[str] = []
    described: set[str] = set()
    for (name, labels), value in sorted(samples.items(), key=_order):
        family = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") if name not in HELP else name
        if family not in described:
            described.add(family)
            kind = "histogram" if family != name else "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {family} {HELP.get(family, family)}", f"# TYPE {family} {kind}"]
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
        lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def merge_samples(parts: Iterable[Mapping[tuple[str, Labels], float]]) -> Samples:
    """The sum of several processes' samples."""
    merged: Samples = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = merged.get(key, 0.0) + value
    return merged


def _order(sample: tuple[tuple[str, Labels], float]) -> tuple[str, list[tuple[str, float, str]]]:
    """By name and labels; the buckets of a histogram by their bounds, as the format wants it."""
    (name, labels), _ = sample
    return name, [(key, float(text) if key == "le" else 0.0, text) for key, text in labels]


def _number(value: float) -> str:
    """All digits: a counter that is rounded looks as if it stood still."""
    return repr(float(value)).removesuffix(".0")


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
