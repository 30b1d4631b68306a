"""The lease's end is the child's end, even if nobody else acts."""

import signal
from collections.abc import Callable

from worker.fence import Fence, now
from worker.process import Child

Start = Callable[[str], Child]
Eventually = Callable[[Callable[[], object]], None]

SLEEP = "import time; time.sleep(600)"


def test_the_child_is_killed_at_the_deadline(start: Start, eventually: Eventually) -> None:
    child = start(SLEEP)
    deadline = now() + 0.3
    with Fence(deadline) as fence:
        fence.guard(child)
        eventually(child.ended)
        assert now() >= deadline
        fence.extend(now() + 600)
        assert fence.fell, "an answer that comes after the kill does not raise the dead"
    assert child.reap() == -signal.SIGKILL


def test_an_extended_lease_keeps_the_child(start: Start, eventually: Eventually) -> None:
    child = start(SLEEP)
    with Fence(now() + 0.3) as fence:
        fence.guard(child)
        fence.extend(now() + 600)
        later = now() + 1
        eventually(lambda: now() > later)
        assert not child.ended()
    assert not fence.fell


def test_leaving_the_fence_leaves_the_child(start: Start) -> None:
    child = start(SLEEP)
    with Fence(now() + 600) as fence:
        fence.guard(child)
    assert not child.ended()
