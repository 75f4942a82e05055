"""CPU affinity of the thread that drives the engine."""

import os
import sys
import threading

import pytest

from service.batching.thread_priority import isolate_engine_driver

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an affinity for each thread")


def test_the_driver_avoids_the_cores_that_other_threads_are_bound_to() -> None:
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        pytest.skip("needs two cores")
    reserved, done = max(every), threading.Event()
    bound, found = threading.Barrier(2), []

    def runtime_thread() -> None:
        os.sched_setaffinity(0, {reserved})
        bound.wait(10)
        done.wait(10)

    def driver() -> None:
        isolate_engine_driver()
        found.append(os.sched_getaffinity(0))

    runtime, engine = threading.Thread(target=runtime_thread), threading.Thread(target=driver)
    runtime.start()
    bound.wait(10)
    engine.start()
    engine.join()
    done.set()
    runtime.join()
    assert found[0]
    assert found[0] <= every - {reserved}  # engines of other tests may have bound threads as well
