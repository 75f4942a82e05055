"""What Prometheus reads at /metrics. One registry a service, so that two in one process do not mix."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG = (0.1, 1, 10, 60, 600, 3600)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Every metric of the service, by the name it is used under."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        on = self.registry
        self.requests = Counter("pan_requests", "Answers", ["method", "route", "status"], registry=on)
        self.request_seconds = Histogram(
            "pan_request_seconds", "Time to answer", ["method", "route"], buckets=_SECONDS, registry=on
        )
        self.connections = Gauge("pan_connections", "Connections that are open", registry=on)
        self.connections_evicted = Counter(
            "pan_connections_evicted", "Connections closed whose clients asked or read nothing", registry=on
        )
        self.unsent_bytes = Gauge("pan_unsent_bytes", "Bytes of answers that clients have yet to take", registry=on)
        self.connections_refused = Counter(
            "pan_connections_refused", "Connections and requests refused before any call", ["code"], registry=on
        )
        self.requests_admitted = Gauge(
            "pan_requests_admitted", "Requests that ask for work, taken in and not yet answered", registry=on
        )
        self.streams_admitted = Gauge("pan_streams_admitted", "Streams taken in and not yet at their end", registry=on)
        self.body_bytes = Gauge("pan_body_bytes", "Bytes of request bodies that are held", registry=on)
        self.images_admitted = Gauge("pan_images_admitted", "Images taken in and not yet answered", registry=on)
        self.images_rejected = Counter("pan_images_rejected", "Images that could not be used", ["code"], registry=on)
        self.batch_size = Histogram("pan_batch_size", "Images an engine call", buckets=_COUNTS, registry=on)
        self.engine_seconds = Histogram("pan_engine_seconds", "Time of an engine call", buckets=_SECONDS, registry=on)
        self.search_seconds = Histogram("pan_search_seconds", "Time of an index search", buckets=_SECONDS, registry=on)
        self.upkeep_seconds = Histogram(
            "pan_index_upkeep_seconds", "Time to bring an index up to date", ["done"], buckets=_LONG, registry=on
        )
        self.commit_seconds = Histogram("pan_commit_seconds", "Time of a commit", buckets=_SECONDS, registry=on)
        self.commit_writes = Histogram("pan_commit_writes", "Writes a commit", buckets=_COUNTS, registry=on)
        self.entries_purged = Counter("pan_entries_purged", "Entries deleted because they had expired", registry=on)
        self.worker_failures = Counter(
            "pan_worker_failures", "Rounds of background work that failed", ["worker"], registry=on
        )
        self.worker_failing = Gauge(
            "pan_worker_failing", "1 while the last round of background work failed", ["worker"], registry=on
        )
        self.galleries_set_aside = Gauge(
            "pan_galleries_set_aside", "GalleryCatalog that are damaged and not served", registry=on
        )

    def watch_galleries(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        """Show how many entries each gallery has, and how many of them are set aside, as `counts` says when the metrics
        are read.
        """
        self.registry.register(_GalleryEntries(counts))


class _GalleryEntries(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        entries = GaugeMetricFamily("pan_gallery_entries", "Entries a gallery", labels=["gallery"])
        set_aside = GaugeMetricFamily(
            "pan_gallery_entries_set_aside", "Damaged entries a gallery, which answer no search", labels=["gallery"]
        )
        for name, (count, damaged) in self._counts().items():
            entries.add_metric([name], count)
            set_aside.add_metric([name], damaged)
        yield from (entries, set_aside)
