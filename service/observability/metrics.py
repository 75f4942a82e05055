"""Prometheus metrics, served at /metrics. Each service has its own registry, as tests run several in one process."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG_SECONDS = (0.1, 1, 10, 60, 600, 3600)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Every metric of the service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("pan_requests", "Responses", ["method", "route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "pan_request_seconds", "Time to respond", ["method", "route"], buckets=_SECONDS, registry=registry
        )
        self.connections = Gauge("pan_connections", "Open connections", registry=registry)
        self.connections_evicted = Counter(
            "pan_connections_evicted",
            "Connections closed because their clients sent or read nothing",
            registry=registry,
        )
        self.unsent_bytes = Gauge(
            "pan_unsent_bytes", "Bytes of responses that clients have not read yet", registry=registry
        )
        self.connections_refused = Counter(
            "pan_connections_refused", "Connections and requests refused before routing", ["code"], registry=registry
        )
        self.requests_admitted = Gauge(
            "pan_requests_admitted", "Admitted requests in progress, without streams", registry=registry
        )
        self.streams_admitted = Gauge("pan_streams_admitted", "Admitted streams in progress", registry=registry)
        self.body_bytes = Gauge("pan_body_bytes", "Bytes of request bodies in memory", registry=registry)
        self.images_admitted = Gauge("pan_images_admitted", "Admitted images in progress", registry=registry)
        self.images_rejected = Counter("pan_images_rejected", "Images rejected", ["code"], registry=registry)
        self.batch_size = Histogram("pan_batch_size", "Images per engine call", buckets=_COUNTS, registry=registry)
        self.engine_seconds = Histogram(
            "pan_engine_seconds", "Duration of an engine call", buckets=_SECONDS, registry=registry
        )
        self.search_seconds = Histogram(
            "pan_search_seconds", "Duration of an index search", buckets=_SECONDS, registry=registry
        )
        self.upkeep_seconds = Histogram(
            "pan_index_upkeep_seconds",
            "Duration of a maintenance step of an index",
            ["done"],
            buckets=_LONG_SECONDS,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "pan_commit_seconds", "Duration of a commit", buckets=_SECONDS, registry=registry
        )
        self.commit_writes = Histogram("pan_commit_writes", "Writes per commit", buckets=_COUNTS, registry=registry)
        self.entries_purged = Counter("pan_entries_purged", "Expired entries deleted", registry=registry)
        self.worker_failures = Counter(
            "pan_worker_failures", "Failed rounds of background workers", ["worker"], registry=registry
        )
        self.worker_failing = Gauge(
            "pan_worker_failing", "1 if the last round of a background worker failed", ["worker"], registry=registry
        )
        self.galleries_set_aside = Gauge(
            "pan_galleries_set_aside", "Damaged galleries, which are not served", registry=registry
        )

    def watch_galleries(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        """Export the numbers of entries and of damaged entries of each gallery; each scrape calls `counts`."""
        self.registry.register(_GalleryEntries(counts))


class _GalleryEntries(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        entries = GaugeMetricFamily("pan_gallery_entries", "Entries per gallery", labels=["gallery"])
        set_aside = GaugeMetricFamily(
            "pan_gallery_entries_set_aside",
            "Damaged entries per gallery, excluded from searches",
            labels=["gallery"],
        )
        for name, (count, damaged) in self._counts().items():
            entries.add_metric([name], count)
            set_aside.add_metric([name], damaged)
        yield from (entries, set_aside)
