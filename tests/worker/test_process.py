"""A child dies with its parent and takes everything with it that it started."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from worker import devices
from worker.process import Child

Start = Callable[[str], Child]
Eventually = Callable[[Callable[[], object]], None]

SLEEP = "import time; time.sleep(600)"
# Starts one sleeper in the group, one in a session of its own, and one in a session of its own whose parent is gone.
FAMILY = f"""
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", {SLEEP!r}]
pids = [subprocess.Popen(sleeper).pid, subprocess.Popen(sleeper, start_new_session=True).pid]
orphan = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=-3).pid)"
pids.append(int(subprocess.run([sys.executable, "-c", orphan, *sleeper], stdout=subprocess.PIPE).stdout))
"""
REPORT = """
with open(sys.argv[1] + "/pids.tmp", "w") as file:
    file.write(" ".join(map(str, pids)))
os.rename(sys.argv[1] + "/pids.tmp", sys.argv[1] + "/pids")
"""


def alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def reported(folder: Path, eventually: Eventually) -> list[int]:
    eventually((folder / "pids").exists)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def test_output_is_appended_and_the_exit_code_returned(start: Start, tmp_path: Path, eventually: Eventually) -> None:
    (tmp_path / "log").write_text("earlier attempt\n")
    child = start("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(70)")
    eventually(child.ended)
    assert child.reap() == 70
    assert (tmp_path / "log").read_text() == "earlier attempt\nout\nerr\n"


def test_a_signal_is_a_negative_exit_code(start: Start, eventually: Eventually) -> None:
    child = start("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    eventually(child.ended)
    assert child.reap() == -signal.SIGSEGV


def test_terminate_lets_the_child_end_by_itself(start: Start, tmp_path: Path, eventually: Eventually) -> None:
    child = start(
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        f"pids = [os.getpid()]{REPORT}\ntime.sleep(600)"
    )
    reported(tmp_path, eventually)
    child.terminate()
    eventually(child.ended)
    assert child.reap() == 75


def test_reap_kills_a_child_that_ignores_sigterm(start: Start, tmp_path: Path, eventually: Eventually) -> None:
    child = start(
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pids = [os.getpid()]{REPORT}\ntime.sleep(600)"
    )
    reported(tmp_path, eventually)
    child.terminate()
    assert child.reap() == -signal.SIGKILL


def test_reap_reaches_descendants_in_other_sessions_and_orphans(start: Start, tmp_path: Path, eventually: Eventually) -> None:
    child = start(FAMILY + REPORT + SLEEP)
    family = reported(tmp_path, eventually)
    assert all(alive(pid) for pid in family)
    assert len({os.getsid(pid) for pid in family}) == 3
    assert child.reap() == -signal.SIGKILL
    assert not [pid for pid in [child.pid, *family] if alive(pid)]


def test_reap_after_the_child_crashed_kills_what_it_left_behind(start: Start, tmp_path: Path, eventually: Eventually) -> None:
    child = start(FAMILY + REPORT + "os._exit(1)")
    family = reported(tmp_path, eventually)
    eventually(child.ended)
    assert all(alive(pid) for pid in family)
    assert child.reap() == 1
    assert not [pid for pid in family if alive(pid)]


def test_a_process_of_somebody_else_is_no_member(start: Start, tmp_path: Path, eventually: Eventually) -> None:
    first, second = start(SLEEP), start(SLEEP)
    assert [process.pid for process in first.members()] == [first.pid]
    first.reap()
    assert alive(second.pid)


def test_a_child_takes_the_place_of_an_older_one_with_its_mark(tmp_path: Path, start: Start, eventually: Eventually) -> None:
    older = start(FAMILY + REPORT + SLEEP)
    family = reported(tmp_path, eventually)
    mark = psutil.Process(family[0]).environ()["MHPO_CHILD"]
    newer = Child.start(mark, [sys.executable, "-c", SLEEP], tmp_path / "log", os.environ)
    assert not [pid for pid in [older.pid, *family] if alive(pid)]
    older.reap()  # by a worker that was frozen meanwhile
    assert alive(newer.pid), "a worker ends its own child only"
    newer.reap()


def test_the_child_dies_when_its_parent_is_killed(tmp_path: Path, eventually: Eventually) -> None:
    nested = f"import os, sys, time\npids = [os.getpid()]{REPORT}\ntime.sleep(600)"
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom worker.process import Child\nfolder = sys.argv[1]\n"
        f"Child.start(folder, [sys.executable, '-c', {nested!r}, folder], Path(folder) / 'log', os.environ)\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    (child,) = reported(tmp_path, eventually)
    assert psutil.Process(child).ppid() == parent.pid
    parent.kill()
    parent.wait()
    eventually(lambda: not alive(child))


def test_a_child_whose_parent_is_already_gone_does_not_start() -> None:
    script = f"""
import os, subprocess, sys
from trainer.process import end_with_parent
death = end_with_parent()
if os.fork() == 0:  # to what this one starts, the maker of `death` is not its parent
    os._exit(abs(subprocess.Popen([sys.executable, "-c", {SLEEP!r}], preexec_fn=death).wait(timeout=15)))
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == signal.SIGKILL


def test_reap_may_be_called_again(start: Start, eventually: Eventually) -> None:
    child = start("import sys; sys.exit(3)")
    eventually(child.ended)
    assert (child.reap(), child.reap()) == (3, 3)


def test_a_leased_gpu_is_cleared_of_whoever_had_it_before(tmp_path: Path, eventually: Eventually) -> None:
    """A worker that hangs keeps a trainer at work whose lease is over, and which nobody can ask to stop."""

    def child(mark: str, *leased: int) -> Child:
        environment = {**os.environ, **devices.environment(leased, str(tmp_path), None)}
        return Child.start(mark, [sys.executable, "-c", SLEEP], tmp_path / "log", environment)

    first, other = child("job-1", 0, 1), child("job-2", 2)
    third = child("job-3", 1)
    eventually(first.ended)
    assert first.reap() == -signal.SIGKILL
    for kept in (other, third):
        assert not kept.ended()
        kept.kill()
        kept.reap()
