"""Part masks and compatibility maps, computed by the bundle's explain graph.

The graph is loaded on the first call. It runs on a thread of its own, in parallel to the engine.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from bundle import Bundle, BundleFileError, ImageArray
from service.batching.thread_priority import lower_priority
from service.core.errors import BodyTooLarge, EngineFailed, NoExplainGraph, Overloaded
from service.core.settings import Settings
from service.core.types import Vectors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_CROPS = 16  # per call; the maps of a crop take a hundred times the memory of its vector
_MAX_WAITING = 4 * MAX_CROPS


class Explainer:
    """Use it on one event loop."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self._bundle = bundle
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain", initializer=lower_priority)
        self._session: InferenceSession | None = None  # used by that thread only
        self._waiting = 0

    def require(self, crops: int) -> None:
        """Raises NoExplainGraph if the bundle has no explain graph, and BodyTooLarge for more than MAX_CROPS crops."""
        try:
            self._bundle.file("onnx", "float32", "explain")
        except BundleFileError:
            raise NoExplainGraph(
                "the bundle has no explain graph; export it again with `pan-export onnx --explain`"
            ) from None
        if crops > MAX_CROPS:
            raise BodyTooLarge(f"{crops} crops to explain in one request; at most {MAX_CROPS} are accepted")

    async def maps(self, crops: ImageArray) -> dict[str, Vectors]:
        """(B, H, W, 3) uint8 RGB -> `masks` (B, I, h, w) and `compatibility_1` ... (B, I, h_l, w_l), float32.

        Raises Overloaded or EngineFailed. The caller sets the deadline.
        """
        if self._waiting + len(crops) > _MAX_WAITING:
            raise Overloaded(f"{self._waiting} crops are waiting to be explained; try again in 1 s", 1)
        self._waiting += len(crops)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, crops)
        finally:
            self._waiting -= len(crops)

    async def close(self) -> None:
        """Stop the thread. Cancels calls that have not started."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _run(self, crops: ImageArray) -> dict[str, Vectors]:
        try:
            session = self._session = self._session or self._load()
            names = [output.name for output in session.get_outputs()]
            maps = dict(zip(names, session.run(names, {session.get_inputs()[0].name: crops}), strict=True))
        except Exception as error:  # ONNX Runtime has its own exceptions, most of them derived from Exception directly
            raise EngineFailed(f"the explain graph failed ({type(error).__name__}: {error})") from error
        if not all(np.isfinite(values).all() for values in maps.values()):
            raise EngineFailed("the explain graph returned NaN or infinity; check it with `pan-export verify`")
        return maps

    def _load(self) -> "InferenceSession":
        import onnxruntime  # an installation with TensorRT alone need not have it

        _, path = self._bundle.file("onnx", "float32", "explain")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
