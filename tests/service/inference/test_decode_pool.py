"""The decode pool: the shared memory budget, its order, and the report of a decode that takes too long."""

import threading
import time

import pytest

from bundle import ImageLimits, ImageTooComplex, ImageTooLarge
from service.core.errors import Overloaded
from service.inference.decode_pool import DecodePool, MemoryBudget
from tests.support.bundles import HEIGHT, WIDTH
from tests.support.pictures import many_scans, png


def test_concurrent_holders_never_exceed_the_budget() -> None:
    budget = MemoryBudget(100)
    held = peak = 0
    lock = threading.Lock()

    def work(size: int) -> None:
        nonlocal held, peak
        with budget.hold(size, 10):
            with lock:
                held += size
                peak = max(peak, held)
            time.sleep(0.002)
            with lock:
                held -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in [60, 30, 100, 50, 50, 10, 90] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (held, peak) == (0, 100)


def test_memory_is_granted_in_the_order_of_the_requests() -> None:
    budget = MemoryBudget(100)
    order: list[str] = []

    def take(name: str, size: int) -> None:
        with budget.hold(size, 10):
            order.append(name)

    with budget.hold(60, 10):
        large = threading.Thread(target=take, args=("large", 90))
        large.start()
        while not budget._turn.locked():
            time.sleep(0.001)
        small = threading.Thread(target=take, args=("small", 10))  # it would fit, but it asked later
        small.start()
        time.sleep(0.02)
        assert order == []
    large.join()
    small.join()
    assert order == ["large", "small"]


def test_a_timeout_raises_overloaded_and_holds_no_memory() -> None:
    budget = MemoryBudget(100)
    with budget.hold(60, 0), pytest.raises(Overloaded), budget.hold(60, 0.01):
        pass
    with budget.hold(100, 0):
        pass


def test_a_decode_that_hangs_is_reported() -> None:
    pool = DecodePool(HEIGHT, WIDTH, ImageLimits(max_seconds=0.05))
    assert pool.decode(png(1)).pixels.shape == (HEIGHT, WIDTH, 3)
    assert pool.overdue == 0.0
    pool._running[0] = time.monotonic() - 10.05
    assert pool.overdue == pytest.approx(10.0, abs=0.5)
    pool.close()


def test_size_limits_do_not_apply_to_stored_crops() -> None:
    pool = DecodePool(HEIGHT, WIDTH, ImageLimits(max_decode_bytes=1000))
    with pytest.raises(ImageTooLarge, match="MiB to decode"):
        pool.decode(png(1))
    assert pool.decode_stored(png(1)).pixels.shape == (HEIGHT, WIDTH, 3)  # the limits accepted it at enrolment
    with pytest.raises(ImageTooComplex):
        pool.decode_stored(many_scans(1000))
    pool.close()


def test_the_time_limit_applies_to_stored_and_imported_crops() -> None:
    pool = DecodePool(HEIGHT, WIDTH, ImageLimits(max_seconds=1e-9))
    for decode in (pool.decode, pool.decode_stored, pool.reencode):
        with pytest.raises(ImageTooComplex, match="did not decode within"):
            decode(png(1))
    pool.close()
