"""What a queue hop costs, from publish to take: `python -m benchmarks.queues`.

Claims: under 10 microseconds (p50) when the consumer is awake, under 60 when it sleeps.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

from benchmarks.common import save
from realtime.frame import Frame
from realtime.queues import FrameQueue, make_queue

HOPS = 3000
PAUSE_S = 0.002


def hops(mode: str, *, awake: bool) -> list[float]:
    """Return the microseconds of each hop between two threads.

    An awake consumer looks again and again, giving up the processor in between; a sleeping one
    waits on the doorbell.
    """
    queue: FrameQueue = make_queue(mode, 2, lambda: Frame(np.zeros((1, 1, 3), np.uint8)))
    taken: list[float] = []

    def consume() -> None:
        while not queue.finished:
            frame = queue.take(0.0 if awake else 1.0)
            if frame is None:
                os.sched_yield()
                continue
            taken.append((time.perf_counter_ns() - frame.captured_ns) / 1000)
            queue.release()

    consumer = threading.Thread(target=consume)
    consumer.start()
    for _ in range(HOPS):
        slot = queue.reserve(1.0)
        assert slot is not None
        slot.captured_ns = time.perf_counter_ns()
        queue.publish()
        _wait(lambda: queue.taken == queue.published)
        if not awake:
            time.sleep(PAUSE_S)
    queue.close()
    consumer.join()
    queue.dispose()
    return taken


def main() -> None:
    result: dict[str, object] = {}
    for mode, name in (("freshest", "mailbox"), ("every", "ring")):
        for awake in (True, False):
            found = sorted(hops(mode, awake=awake))
            result[f"{name}, consumer {'awake' if awake else 'asleep'}"] = {
                "p50_us": round(statistics.median(found), 2),
                "p95_us": round(found[int(len(found) * 0.95)], 2),
                "hops": len(found),
            }
    save("queues", {"hop": result})


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        os.sched_yield()


if __name__ == "__main__":
    main()
