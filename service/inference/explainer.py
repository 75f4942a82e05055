"""What the network looked at: part masks and compatibility maps, by the bundle's second graph.

The graph is loaded by the first call that needs it, once. It runs on one thread of its own, beside the engine.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from bundle import Bundle, BundleFileError, ImageArray
from service.batching.thread_priority import lower_priority
from service.core.errors import BodyTooLarge, DeadlineExceeded, EngineFailed, NoExplainGraph, Overloaded
from service.core.settings import Settings
from service.core.types import Vectors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MOST_CROPS = 16  # of one call; the maps of a crop are a hundred times its embedding
_MOST_WAITING = 4 * MOST_CROPS


class Explainer:
    """Lives on one event loop."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self._bundle = bundle
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain", initializer=lower_priority)
        self._session: InferenceSession | None = None  # belongs to that thread
        self._waiting = 0

    def require(self, crops: int) -> None:
        """Raises NoExplainGraph where the bundle has none, BodyTooLarge for more crops than one call takes."""
        try:
            self._bundle.file("onnx", "float32", "explain")
        except BundleFileError:
            raise NoExplainGraph(
                "the bundle has no graph of part masks; export it again with `pan-export onnx --explain`"
            ) from None
        if crops > MOST_CROPS:
            raise BodyTooLarge(f"{crops} crops to explain in one request; at most {MOST_CROPS} are accepted")

    async def maps(self, crops: ImageArray) -> dict[str, Vectors]:
        """(B, H, W, 3) uint8 RGB -> `masks` (B, I, h, w) and `compatibility_1` ... (B, I, h_l, w_l), float32.

        Raises Overloaded, DeadlineExceeded or EngineFailed.
        """
        if self._waiting + len(crops) > _MOST_WAITING:
            raise Overloaded(f"{self._waiting} crops are waiting to be explained; try again in 1 s", 1)
        self._waiting += len(crops)
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, crops)
        except TimeoutError:
            raise DeadlineExceeded(
                f"not explained within {self._settings.request_timeout:g} s; send fewer images at a time"
            ) from None
        finally:
            self._waiting -= len(crops)

    async def close(self) -> None:
        """Stop; what waits is cancelled."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _run(self, crops: ImageArray) -> dict[str, Vectors]:
        try:
            session = self._session = self._session or self._load()
            names = [output.name for output in session.get_outputs()]
            maps = dict(zip(names, session.run(names, {session.get_inputs()[0].name: crops}), strict=True))
        except Exception as error:  # ONNX Runtime raises its own classes, most directly under Exception
            raise EngineFailed(f"the graph of part masks failed ({type(error).__name__}: {error})") from error
        if not all(np.isfinite(values).all() for values in maps.values()):
            raise EngineFailed(
                "the graph of part masks gave NaN or infinite numbers; check it with `pan-export verify`"
            )
        return maps

    def _load(self) -> "InferenceSession":
        import onnxruntime  # an installation for TensorRT alone need not have it

        _, path = self._bundle.file("onnx", "float32", "explain")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
