"""What Prometheus is told of the server, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from st_modules.serve.problems import Kind

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_POWERS = tuple(4**power for power in range(9))


class Metrics:
    """Counters of requests and of what they cost.

    Args:
        count_waiting: Returns how many calls wait for the model.

    Attributes:
        labels: What every figure bears: where several processes answer, which of them it is of.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, count_waiting: Callable[[], int]) -> None:
        self.labels: Mapping[str, str] = {}
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("st_modules_requests", "Requests.", ["path", "status"], registry=registry)
        self._errors = Counter("st_modules_errors", "Requests that failed.", ["kind"], registry=registry)
        self._seconds = Histogram(
            "st_modules_request_seconds", "Time to answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self._tokens = Counter("st_modules_tokens", "Tokens of requests that were answered.", registry=registry)
        self._items = Counter("st_modules_items", "Items of requests that were answered.", registry=registry)
        self._batch_items = Histogram(
            "st_modules_batch_items", "Items that ran together.", buckets=_POWERS, registry=registry
        )
        self._batch_tokens = Histogram(
            "st_modules_batch_tokens", "Tokens that ran together.", buckets=_POWERS, registry=registry
        )
        self.requests_in_flight = Gauge(
            "st_modules_requests_in_flight", "Requests that are read, wait or run.", registry=registry
        )
        waiting = Gauge("st_modules_queue_calls", "Calls that wait for the model.", registry=registry)
        waiting.set_function(count_waiting)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered, with whatever status."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_error(self, kind: Kind) -> None:
        """Count a request that was not answered with embeddings."""
        self._errors.labels(kind).inc()

    def count_embedded(self, items: int, tokens: int) -> None:
        """Count the items of a request that was embedded."""
        self._items.inc(items)
        self._tokens.inc(tokens)

    def count_batch(self, items: int, tokens: int) -> None:
        """Count items that ran together."""
        self._batch_items.observe(items)
        self._batch_tokens.observe(tokens)

    def render(self) -> bytes:
        """Return what Prometheus reads."""
        labelled = CollectorRegistry()
        labelled.register(_Labelled(self._registry, self.labels))
        return generate_latest(labelled)


class _Labelled(Collector):
    """The figures of a registry, which bear labels."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self._labels}) for sample in metric.samples]
            yield metric
