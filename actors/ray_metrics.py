"""The platform's metrics in Ray's own: what ``/metrics`` shows, through ``ray.util.metrics`` on the node's metrics port."""

from __future__ import annotations

from typing import Any

from actors.metrics import HELP, Labels, Samples


class RayMetrics:
    """Publishes samples; counters as what was added since the last time, everything else as it is."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._published: dict[tuple[str, Labels], float] = {}

    def publish(self, samples: Samples) -> None:
        """Cheap enough for every few seconds: 2-3 us a sample. Histograms go out as their sum and count."""
        for (name, labels), value in samples.items():
            if name.endswith("_bucket"):
                continue
            metric = self._metric(name, tuple(key for key, _ in labels))
            if _is_counter(name):
                added = value - self._published.get((name, labels), 0.0)
                self._published[name, labels] = value
                if added > 0:
                    metric.inc(added, tags=dict(labels))
            else:
                metric.set(value, tags=dict(labels))

    def _metric(self, name: str, keys: tuple[str, ...]) -> Any:
        metric = self._metrics.get(name)
        if metric is None:
            from ray.util.metrics import Counter, Gauge

            kind = Counter if _is_counter(name) else Gauge
            metric = self._metrics[name] = kind(name, description=HELP.get(name, name), tag_keys=keys)
        return metric


def _is_counter(name: str) -> bool:
    return name.endswith(("_total", "_count", "_sum"))
