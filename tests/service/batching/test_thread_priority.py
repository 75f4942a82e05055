"""Where the thread that drives the engine computes."""

import os
import sys
import threading

import pytest

from service.batching.thread_priority import isolate_engine_driver

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds single threads to cores")


def test_the_driver_keeps_off_the_cores_of_threads_that_are_bound() -> None:
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        pytest.skip("there is one core")
    taken, done = max(every), threading.Event()
    bound, found = threading.Barrier(2), []

    def of_a_runtime() -> None:
        os.sched_setaffinity(0, {taken})
        bound.wait(10)
        done.wait(10)

    def driver() -> None:
        isolate_engine_driver()
        found.append(os.sched_getaffinity(0))

    runtime, engine = threading.Thread(target=of_a_runtime), threading.Thread(target=driver)
    runtime.start()
    bound.wait(10)
    engine.start()
    engine.join()
    done.set()
    runtime.join()
    assert found[0]
    assert found[0] <= every - {taken}  # engines of other tests may have bound threads, too
