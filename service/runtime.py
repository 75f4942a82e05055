"""The parts of one running service, opened in order and closed in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bundle import Bundle, load_bundle
from service.database import Database
from service.embedder import Embedder
from service.engine import OnnxEngine
from service.errors import StartupError
from service.metrics import Metrics
from service.searcher import Searcher
from service.settings import Settings
from service.store import Store
from service.wheels import installed_wheels

log = logging.getLogger(__name__)

_READY_FOR = 10.0  # seconds for which one embedding proves that the engine works
_PROBE_TIMEOUT = 5.0


@dataclass(slots=True)
class Service:
    """What the API's calls work with."""

    settings: Settings
    bundle: Bundle
    metrics: Metrics
    embedder: Embedder
    searcher: Searcher
    store: Store
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check_ready(self) -> None:
        """Raises what keeps the service from its work: the engine does not embed, or the disk takes no writes."""
        async with self._probing, asyncio.timeout(_PROBE_TIMEOUT):
            if self.embedder.seconds_since_success > _READY_FOR:
                await self.embedder.probe()
            await self.store.probe()


@asynccontextmanager
async def open_service(settings: Settings, metrics: Metrics) -> AsyncIterator[Service]:
    """Load the bundle, warm up the engine, open the database, rebuild the galleries.

    Raises StartupError, BundleError or EngineFailed.
    """
    wheels = installed_wheels()
    bundle = load_bundle(settings.bundle)
    engine = OnnxEngine(bundle, settings.device, settings.precision, settings.threads)
    model = bundle.manifest.model
    log.info("engine", extra={**wheels, "device": settings.device, "precision": settings.precision})
    log.info("model", extra={"fingerprint": model.fingerprint, "variant": model.variant, "dim": model.embedding_size})
    async with AsyncExitStack() as stack:
        embedder = Embedder(engine, settings, metrics)
        stack.push_async_callback(embedder.close)
        await embedder.probe()
        searcher = Searcher(metrics)
        stack.push_async_callback(searcher.close)
        try:
            settings.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"the data folder {settings.data} cannot be made ({error}); give another --data"
            ) from error
        database = Database(settings.data / "pan.sqlite3", metrics)
        stack.push_async_callback(asyncio.to_thread, database.close)
        store = Store(database, model.fingerprint, engine.dim, metrics)
        await store.load()
        log.info("galleries", extra={"names": [row.name for row in store.galleries()]})
        yield Service(settings, bundle, metrics, embedder, searcher, store)
