"""What a service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dualrs.certificates import Certificate
from dualrs.sampling import ModelStats

_RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


class Metrics:
    """Counts requests and answers of one service.

    Args:
        stats: gives what the models have done.
        under_way: gives how many inputs are being certified or wait.
    """

    def __init__(self, stats: Callable[[], Mapping[str, ModelStats]], under_way: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engine(stats, under_way))
        self._requests = Counter(
            "dualrs_requests_total",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "dualrs_request_seconds", "Seconds until a request was answered.", ["route"], registry=self._registry
        )
        self._answers = Counter(
            "dualrs_certificates_total",
            "Certificates by rule, whether they abstain, and why sampling ended.",
            ["rule", "abstained", "ended"],
            registry=self._registry,
        )
        self._radius = Histogram(
            "dualrs_certified_radius", "Certified radii.", ["rule"], buckets=_RADII, registry=self._registry
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Takes note of a request."""
        known = method if method in ("GET", "POST", "HEAD") else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def certified(self, rule: str, certificate: Certificate, ended: str) -> None:
        """Takes note of an answer."""
        self._answers.labels(rule, str(certificate.abstained).lower(), ended).inc()
        if not certificate.abstained:
            self._radius.labels(rule).observe(certificate.radius)

    def render(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self._registry)


class _Engine(Collector):
    """Reads what the engine counts, when it is asked for."""

    def __init__(self, stats: Callable[[], Mapping[str, ModelStats]], under_way: Callable[[], int]) -> None:
        self._stats, self._under_way = stats, under_way

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("dualrs_inputs_under_way", "Inputs being certified or waiting.", self._under_way())
        votes = CounterMetricFamily("dualrs_votes", "Votes that were asked for, by model.", labels=["model"])
        slots = CounterMetricFamily("dualrs_batch_rows", "Rows of all batches, by model.", labels=["model"])
        seconds = CounterMetricFamily("dualrs_model_seconds", "Seconds spent in batches, by model.", labels=["model"])
        for name, stats in list(self._stats().items()):
            votes.add_metric([name], stats.votes)
            slots.add_metric([name], stats.slots)
            seconds.add_metric([name], stats.seconds)
        yield from (votes, slots, seconds)
