"""Composition root: opens the parts of a service in order, closes them in reverse, and offers the use cases."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bundle import load_bundle
from service.auth.keys import Authenticator
from service.auth.refusals import RefusalLog
from service.core.clock import now
from service.core.packages import check_binary_packages
from service.core.settings import Settings
from service.galleries.audit import Audit
from service.galleries.catalog import GalleryCatalog
from service.galleries.enrolment import Enrolment
from service.galleries.entries import Entries
from service.galleries.inference import Inference
from service.galleries.management import Galleries
from service.galleries.persons import Persons
from service.galleries.query.search import Search
from service.galleries.query.searcher import Searcher
from service.galleries.status import Status
from service.galleries.transfer import Transfer
from service.inference.embedder import Embedder
from service.inference.engines.loader import load_engine
from service.inference.explainer import Explainer
from service.observability import tracing
from service.observability.metrics import Metrics
from service.storage.data_dir import DATABASE, SNAPSHOTS, lock_data_dir
from service.storage.database import Database
from service.workers.index_maintenance import IndexMaintainer
from service.workers.reembedding import ReEmbedder
from service.workers.retention import Purger

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UseCases:
    """Everything that the API calls. Each method takes one command and returns one result, both plain data."""

    settings: Settings
    inference: Inference
    galleries: Galleries
    entries: Entries
    persons: Persons
    enrolment: Enrolment
    search: Search
    transfer: Transfer
    retention: Purger
    reembedding: ReEmbedder
    audit: Audit
    status: Status


@dataclass(frozen=True, slots=True)
class Container:
    """A running service: the use cases and the authentication for the API, and the parts behind them."""

    settings: Settings
    metrics: Metrics
    keys: Authenticator
    refusals: RefusalLog
    use_cases: UseCases
    database: Database
    catalog: GalleryCatalog
    embedder: Embedder
    audit: Audit


@asynccontextmanager
async def open_service(settings: Settings, clock: Callable[[], int] = now) -> AsyncIterator[Container]:
    """Load the bundle, choose and warm up the engine, open the database, build the index of every gallery.

    Raises StartupError, BundleError or EngineFailed.
    """
    wheels = check_binary_packages()
    bundle = load_bundle(settings.bundle)
    model = bundle.manifest.model
    calibration = bundle.manifest.calibration
    log.info("model", extra={"fingerprint": model.fingerprint, "variant": model.variant, "dim": model.embedding_size})
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        stack.enter_context(lock_data_dir(settings.data))
        stack.enter_context(tracing.export_spans(settings.otlp_endpoint))
        loaded = load_engine(bundle, settings)
        stack.callback(loaded.engine.close)
        log.info("engine", extra={**wheels, "reason": loaded.selection.reason, "cosine_min": loaded.parity.cosine_min})
        embedder = Embedder(loaded.engine, settings, metrics)
        stack.push_async_callback(embedder.close)
        await embedder.probe()
        explainer = Explainer(bundle, settings)
        stack.push_async_callback(explainer.close)
        searcher = Searcher(metrics)
        stack.push_async_callback(searcher.close)
        database = Database(settings.data / DATABASE, metrics)
        stack.push_async_callback(asyncio.to_thread, database.close)
        keys = Authenticator(database, settings.admin_key)
        refusals = RefusalLog(database, metrics)
        await stack.enter_async_context(refusals.running())
        catalog = GalleryCatalog(database, model.fingerprint, loaded.engine.dim, metrics, clock)
        await catalog.load()
        await stack.enter_async_context(catalog.running())
        _log_galleries(catalog)
        reembedder = ReEmbedder(database, catalog, embedder, metrics)
        await stack.enter_async_context(reembedder.running())
        purger = Purger(database, catalog, metrics)
        await stack.enter_async_context(purger.running())
        maintainer = IndexMaintainer(database, catalog, settings.data / SNAPSHOTS, metrics)
        await stack.enter_async_context(maintainer.running())
        audit = Audit(database)
        workers = (refusals.health, catalog.health, reembedder.health, purger.health, maintainer.health)
        use_cases = UseCases(
            settings=settings,
            inference=Inference(embedder, explainer, audit, model.fingerprint, calibration),
            galleries=Galleries(database, catalog),
            entries=Entries(database, catalog, audit),
            persons=Persons(database, catalog),
            enrolment=Enrolment(database, catalog, embedder),
            search=Search(database, catalog, embedder, searcher, audit, calibration, settings.max_top_k),
            transfer=Transfer(database, catalog, embedder),
            retention=purger,
            reembedding=reembedder,
            audit=audit,
            status=Status(settings, bundle, loaded, embedder, searcher, database, catalog, workers),
        )
        yield Container(settings, metrics, keys, refusals, use_cases, database, catalog, embedder, audit)


def _log_galleries(catalog: GalleryCatalog) -> None:
    rows = [loaded.row for loaded in catalog.all()]
    log.info("galleries", extra={"names": [row.name for row in rows]})
    if others := [row.name for row in rows if not catalog.is_current(row)]:
        log.warning(
            "these galleries are of another model and cannot be searched by images: `pan-serve re-embed NAME` "
            "embeds kept crops with the loaded model; galleries without kept crops need the bundle they were enrolled "
            "with",
            extra={"names": others},
        )
