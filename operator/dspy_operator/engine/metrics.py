"""What the operator counts, each with what it is good for. `docs/reference/metrics.md` is made from this file.

Print it: `python -m dspy_operator.engine.metrics`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, which nobody reads

PREFIX = "dspy_operator"
_Metric = TypeVar("_Metric", bound=MetricWrapperBase)

_PASS_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_WAIT_SECONDS = (0.01, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """One operator's; a test makes its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.documented: list[tuple[str, str, Sequence[str], str]] = []
        """(name, type, labels, help)."""

        self.passes = self._new(
            Counter,
            "reconciles_total",
            "Passes over one object, by how they ended: quiet (nothing to do), wrote, foreign, conflict, busy, error.",
            "kind",
            "result",
        )
        self.pass_seconds = self._histogram(
            "reconcile_seconds", "How long a pass took, its writes included.", _PASS_SECONDS, "kind"
        )
        self.queue_depth = self._new(Gauge, "queue_depth", "Objects that wait for a worker.")
        self.queue_oldest = self._new(
            Gauge, "queue_oldest_seconds", "How long the longest-waiting object has waited; /healthz fails over 300."
        )
        self.longest_pass = self._new(
            Gauge, "reconcile_running_seconds", "Age of the oldest pass that is still going on."
        )
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "From being woken to being looked at: what a user feels after an edit.", _WAIT_SECONDS
        )
        self.requeues = self._new(
            Counter,
            "requeues_total",
            "Objects that come again by themselves: backoff after a failure, later as the controller asked, held back.",
            "kind",
            "why",
        )
        self.unsettled = self._new(
            Counter,
            "unsettled_total",
            "Objects held back since pass after pass wrote something: two writers disagree, or a bug.",
            "kind",
        )
        self.api_requests = self._new(
            Counter,
            "api_requests_total",
            "Requests to the API server, watches left out; code none is no answer.",
            "verb",
            "resource",
            "code",
        )
        self.api_seconds = self._histogram(
            "api_request_seconds", "How long the API server took to answer.", _PASS_SECONDS, "verb"
        )
        self.child_writes = self._new(
            Counter,
            "child_writes_total",
            "Children applied, created, replaced, deleted or relabelled.",
            "kind",
            "action",
        )
        self.healed = self._new(
            Counter, "children_healed_total", "Children set back after somebody else had changed them.", "kind"
        )
        self.status_writes = self._new(
            Counter, "status_writes_total", "Statuses written: at most one for each change of meaning.", "kind"
        )
        self.status_pruned = self._new(
            Counter,
            "status_pruned_total",
            "Statuses of which the API server kept less than was sent: CRDs older than the operator.",
            "kind",
        )
        self.events = self._new(Counter, "events_total", "Kubernetes Events written.", "kind", "type")
        self.foreign = self._new(Counter, "foreign_total", "Needed names that an object of somebody else has.", "kind")
        self.watch_events = self._new(Counter, "watch_events_total", "What the watches told.", "kind", "type")
        self.watch_age = self._new(
            Gauge,
            "watch_age_seconds",
            "Since a watch was last heard of: an event or a reconnect, which is due every 240 s. /healthz fails over 600.",
            "kind",
        )
        self.cached = self._new(Gauge, "cache_objects", "Objects in the cache.", "kind")
        self.resync_seconds = self._histogram(
            "resync_seconds", "How long listing and comparing everything took.", (0.1, 0.3, 1, 3, 10, 30, 100)
        )
        self.resync_found = self._new(
            Counter,
            "resync_found_total",
            "What a resync repaired: changes that the watch missed, ghosts, orphans. Should stay 0.",
            "kind",
            "what",
        )
        self.loop_lag = self._new(
            Gauge, "loop_lag_seconds", "How late the event loop was: over 0.1 something in the operator blocks."
        )
        self.build = self._new(Gauge, "build_info", "1; the labels say which operator this is.", "version")

    def _new(self, make: Callable[..., _Metric], name: str, text: str, *labels: str) -> _Metric:
        self.documented.append((f"{PREFIX}_{name}", make.__name__, labels, text))
        return make(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        self.documented.append((f"{PREFIX}_{name}", "Histogram", labels, text))
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)


def documentation() -> str:
    """The reference page, Markdown."""
    rows = [
        f"| `{name}` | {type_.lower()} | {', '.join(f'`{label}`' for label in labels) or '-'} | {text} |"
        for name, type_, labels, text in sorted(Metrics().documented)
    ]
    return "\n".join(
        [
            "# Metrics of the operator",
            "",
            "Made from `engine/metrics.py` by `python -m dspy_operator.engine.metrics`; do not edit. Served at `/metrics`.",
            "",
            "| metric | type | labels | what it tells |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(documentation())
