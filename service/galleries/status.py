"""Use cases on the service itself: the loaded model, and readiness."""

import asyncio
import shutil
from collections.abc import Sequence

from bundle import Bundle, PanError
from pan_reid.schemas import Model
from service.core.errors import NotReady, StorageFull
from service.core.settings import Settings
from service.galleries.catalog import GalleryCatalog
from service.galleries.query.searcher import Searcher
from service.galleries.results import Readiness
from service.inference.embedder import Embedder
from service.inference.engines.loader import LoadedEngine
from service.observability.worker import WorkerHealth
from service.storage.connection import read_probe, write_probe
from service.storage.database import Database

_PROBE_VALID_FOR = 10.0  # seconds for which one embedding proves that the engine works
_PROBE_TIMEOUT = 5.0  # seconds
_MIN_FREE = 16 * 2**20  # bytes on the disk; with less, small writes may still succeed while large ones fail


class Status:
    """Use it on one event loop."""

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        loaded: LoadedEngine,
        embedder: Embedder,
        searcher: Searcher,
        database: Database,
        catalog: GalleryCatalog,
        workers: Sequence[WorkerHealth],
    ) -> None:
        """`workers` are the background jobs whose failures readiness reports."""
        self._settings = settings
        self._embedder = embedder
        self._searcher = searcher
        self._database = database
        self._catalog = catalog
        self._workers = workers
        self._model = _model(settings, bundle, loaded)
        self._probing = asyncio.Lock()

    async def model(self) -> Model:
        """The loaded model, its measured quality, and the engine that runs it."""
        return self._model

    async def readiness(self) -> Readiness:
        """The state of a service that answers requests.

        Raises NotReady if the engine does not embed, an engine or search thread has ended, the disk is full, or the
        database cannot be read or written.
        """
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT), self._probing:
                await self._probe()
        except TimeoutError:
            raise NotReady(f"not ready: engine and disk did not answer within {_PROBE_TIMEOUT:g} s") from None
        except (PanError, OSError) as error:
            raise NotReady(f"not ready: {error}") from error
        return Readiness(
            tuple(worker.name for worker in self._workers if worker.failing),
            self._catalog.damaged_entries,
            len(self._catalog.set_aside),
        )

    async def _probe(self) -> None:
        self._embedder.require_running()
        self._searcher.require_running()
        if self._embedder.seconds_since_success > _PROBE_VALID_FOR:
            await self._embedder.probe()
        if late := self._embedder.decode_overdue:
            raise NotReady(f"the decoding of an image is {late:.0f} s over its time limit; restart the service")
        free = (await asyncio.to_thread(shutil.disk_usage, self._settings.data)).free
        if free < _MIN_FREE:
            raise StorageFull(
                f"the disk of the data folder has {free // 2**20} MiB left, {_MIN_FREE // 2**20} MiB are needed; free "
                "some space"
            )
        await self._database.read(read_probe)
        if self._database.last_write_failed:
            await self._database.write(write_probe)


def _model(settings: Settings, bundle: Bundle, loaded: LoadedEngine) -> Model:
    manifest, choice = bundle.manifest, loaded.selection
    return Model.model_validate(
        {
            "architecture": manifest.model.architecture,
            "variant": manifest.model.variant,
            "backbone": manifest.model.backbone,
            "parts": manifest.model.parts,
            "parameters": manifest.model.parameters,
            "fingerprint": manifest.model.fingerprint,
            "dim": manifest.output.dim,
            "input_height": manifest.input.height,
            "input_width": manifest.input.width,
            "engine": choice.engine,
            "device": choice.device,
            "precision": choice.file.precision,
            "file": choice.file.name,
            "reason": choice.reason,
            "max_batch": min(settings.max_batch, loaded.engine.max_batch or settings.max_batch),
            "parity": loaded.parity.model_dump(mode="json"),
            "evaluation": manifest.evaluation.model_dump(mode="json") if manifest.evaluation else None,
            "calibration": manifest.calibration.model_dump(mode="json") if manifest.calibration else None,
            "licence_notes": manifest.provenance.licence_notes,
        }
    )
