"""`/metrics`: the queue and this server process for Prometheus."""

import threading
import time
from collections.abc import Callable, Iterator

from flask import Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from banyan.api.context import actor
from banyan.api.data import reader
from banyan.api.routes import route
from banyan.domain.roles import Role
from banyan.errors import Forbidden
from banyan.storage.statistics import count_queues, count_workers
from banyan.storage.waiting import count_assigned

_KEY = "BANYAN_METRICS"
_FRESH_SECONDS = 5.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self.requests = Counter("banyan_requests", "Answered requests", (*labels, "status"), registry=self.registry)
        self.seconds = Histogram(
            "banyan_request_seconds", "Time to answer", labels, buckets=_BUCKETS, registry=self.registry
        )
        self.registry.register(_Queue(_counted))

    def observe(self, response: Response) -> None:
        """Count the request that has just been handled."""
        path = request.url_rule.rule if request.url_rule else "(none)"
        method = request.method if request.method in _METHODS else "(other)"  # any text may come, without a token
        self.requests.labels(method, path, response.status_code).inc()
        started = g.get("metrics_started")
        if started is not None:
            self.seconds.labels(method, path).observe(time.perf_counter() - started)


class _Queue(Collector):
    """Tasks and workers in the database, counted at most every few seconds."""

    def __init__(self, count: Callable[[], list[GaugeMetricFamily]]) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._at: float | None = None
        self._families: list[GaugeMetricFamily] = []

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Describe nothing: the gauges are counted on collection, not on registration."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        with self._lock:
            if self._at is None or time.monotonic() - self._at > _FRESH_SECONDS:
                self._families = self._count()
                self._at = time.monotonic()
            yield from self._families


def _counted() -> list[GaugeMetricFamily]:
    tasks = GaugeMetricFamily("banyan_tasks", "Tasks by queue and state", labels=("queue", "state"))
    for queue, states in count_queues(reader()).items():
        for state, count in states.items():
            tasks.add_metric((queue, state), count)
    assigned = GaugeMetricFamily(
        "banyan_tasks_assigned", "Tasks in state running that their worker has not begun, by queue", labels=("queue",)
    )
    for queue, count in count_assigned(reader(), {}, "queue").items():
        assigned.add_metric((queue,), count)
    workers = GaugeMetricFamily("banyan_workers", "Workers by state", labels=("state",))
    for state, count in count_workers(reader()).items():
        workers.add_metric((state,), count)
    return [tasks, assigned, workers]


def install(app: Flask) -> None:
    """Count the requests of `app`."""
    metrics = app.config[_KEY] = Metrics()

    def start() -> None:
        g.metrics_started = time.perf_counter()

    def finish(response: Response) -> Response:
        metrics.observe(response)
        return response

    app.before_request(start)
    app.after_request(finish)


@route("GET", "/metrics", media_type="text/plain", summary="Tasks, workers and requests for Prometheus")
def metrics() -> Response:
    """Gauges of the whole queue; counters of the server process that responds.

    Where reads are private, providers are refused: the metrics count all users' tasks.
    """
    if actor().private and actor().role == Role.PROVIDER:
        raise Forbidden(
            "the metrics count all users' tasks; reads are private here, so they are for admins and workers"
        )
    counted: Metrics = current_app.config[_KEY]
    return Response(generate_latest(counted.registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)
