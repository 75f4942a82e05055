"""The parts of one running service, opened in order and closed in reverse."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bundle import Bundle, PanError, load_bundle
from service.auth.keys import Authenticator
from service.auth.refusals import RefusalLog
from service.core.clock import now
from service.core.errors import NotReady, StorageFull
from service.core.packages import check_binary_packages
from service.core.settings import Settings
from service.galleries.catalog import GalleryCatalog
from service.galleries.enrolment import Enrolment
from service.galleries.entries import Entries
from service.galleries.search import Searcher
from service.galleries.transfer import Transfer
from service.inference.embedder import Embedder
from service.inference.engines.loader import LoadedEngine, load_engine
from service.inference.explainer import Explainer
from service.observability import tracing
from service.observability.metrics import Metrics
from service.observability.worker import WorkerHealth
from service.storage.connection import read_probe, write_probe
from service.storage.data_dir import DATABASE, SNAPSHOTS, lock_data_dir
from service.storage.database import Database
from service.workers.index_maintenance import IndexMaintainer
from service.workers.reembedding import ReEmbedder
from service.workers.retention import Purger

log = logging.getLogger(__name__)

_READY_FOR = 10.0  # seconds for which one embedding proves that the engine works
_PROBE_TIMEOUT = 5.0
_LEAST_FREE = 16 * 2**20  # bytes on the disk; small writes still succeed on one where large ones already fail


@dataclass(slots=True)
class Container:
    """What the API's calls work with."""

    settings: Settings
    bundle: Bundle
    metrics: Metrics
    loaded: LoadedEngine
    embedder: Embedder
    searcher: Searcher
    database: Database
    galleries: GalleryCatalog
    entries: Entries
    enrolment: Enrolment
    keys: Authenticator
    refusals: RefusalLog
    explainer: Explainer
    purger: Purger
    transfer: Transfer
    reembedder: ReEmbedder
    workers: Sequence[WorkerHealth]
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def health(self) -> list[str]:
        """The names of background work that fails at the moment, without which requests are still answered.

        Raises NotReady when the engine does not embed, a thread of the engine or of the searches has ended, the disk is
        full, or the database is not read or takes no writes.
        """
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT), self._probing:
                self.embedder.require_running()
                self.searcher.require_running()
                if self.embedder.seconds_since_success > _READY_FOR:
                    await self.embedder.probe()
                if late := self.embedder.decode_overdue:
                    raise NotReady(
                        f"an image is {late:.0f} s over the time in which it must be decoded; restart the service"
                    )
                free = (await asyncio.to_thread(shutil.disk_usage, self.settings.data)).free
                if free < _LEAST_FREE:
                    left, least = free // 2**20, _LEAST_FREE // 2**20
                    raise StorageFull(
                        f"the data folder's disk has {left} MiB left, {least} are needed; free some space"
                    )
                await self.database.read(read_probe)
                if self.database.last_write_failed:
                    await self.database.write(write_probe)
        except TimeoutError:
            raise NotReady(f"not ready: engine and disk did not answer within {_PROBE_TIMEOUT:g} s") from None
        except (PanError, OSError) as error:
            raise NotReady(f"not ready: {error}") from error
        return [worker.name for worker in self.workers if worker.failing]


@asynccontextmanager
async def open_service(settings: Settings, clock: Callable[[], int] = now) -> AsyncIterator[Container]:
    """Load the bundle, choose and warm up the engine, open the database, rebuild the galleries.

    Raises StartupError, BundleError or EngineFailed.
    """
    wheels = check_binary_packages()
    bundle = load_bundle(settings.bundle)
    model = bundle.manifest.model
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
        galleries = GalleryCatalog(database, model.fingerprint, loaded.engine.dim, metrics, clock)
        await galleries.load()
        await stack.enter_async_context(galleries.running())
        log.info("galleries", extra={"names": [gallery.row.name for gallery in galleries.all()]})
        if others := [held.row.name for held in galleries.all() if not galleries.is_current(held.row)]:
            log.warning(
                "these galleries are of another model and cannot be searched by pictures: `pan-serve re-embed NAME` "
                "brings one that keeps crops to the loaded model; the others need the bundle they were enrolled with",
                extra={"names": others},
            )
        entries = Entries(database, galleries)
        reembedder = ReEmbedder(database, galleries, embedder, model.fingerprint, metrics)
        await stack.enter_async_context(reembedder.running())
        purger = Purger(database, galleries, metrics)
        await stack.enter_async_context(purger.running())
        upkeep = IndexMaintainer(database, galleries, settings.data / SNAPSHOTS, metrics)
        await stack.enter_async_context(upkeep.running())
        yield Container(
            settings,
            bundle,
            metrics,
            loaded,
            embedder,
            searcher,
            database,
            galleries,
            entries,
            Enrolment(embedder, entries),
            keys,
            refusals,
            explainer,
            purger,
            Transfer(database, galleries),
            reembedder,
            (refusals.health, galleries.health, reembedder.health, purger.health, upkeep.health),
        )
