"""Run many small jobs while workers are killed and the scheduler is restarted: `python benchmarks/sweep_scale.py`.

Jobs are simulated stages (a sleep, and a figure that depends on the settings alone) and some real ones (captures of a
small network), two stages a combination. With `--engine dask`, the scheduler and the workers are processes of `dask
scheduler` and `dask worker`; a worker is killed every few seconds and started again, and the scheduler once. Prints,
and with `--out FILE` writes: results lost and doubled, overhead of a job, and the driver's memory.

Overhead is wall time times workers over jobs, less the time that the stages themselves take. Machines that do other
work meanwhile show more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgecnn.jobs import LocalExecutor, Status
from edgecnn.sweeping.run import Loop
from edgecnn.sweeping.spec import Engine
from edgecnn.sweeping.stages import Stage
from edgecnn.sweeping.store import Store

HERE = Path(__file__).parent
KIND = f"{Path(__file__).stem}:simulated"
SHARED = 25  # first stages, each shared by all combinations of its number
FAILURES = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"  # workers that may die under a job before Dask gives it up
REAL = 100  # one of so many combinations is a real one
MODEL = "mobilenet_v1_0.25_32"
START_S = 300  # for the scheduler and all workers to start


def simulated(settings, before, folder):
    """Do a simulated stage."""
    time.sleep(settings["seconds"])
    (folder / "made").write_text(str(settings["number"]))
    return {"number": settings["number"] + (before.value["number"] if before else 0)}


def stages(count: int, seconds: float) -> list[Stage]:
    """Return last stages: simulated ones in chains of two, and captures of random weights."""
    first = [Stage(KIND, f"first {k}", {"number": 1000 * k, "seconds": seconds}) for k in range(SHARED)]
    made = []
    for k in range(count):
        if k % REAL == REAL - 1:
            settings = {"model": MODEL, "weights": "random", "seed": k // REAL}
            made.append(Stage("capture", f"capture {k}", settings))
        else:
            settings = {"number": k, "seconds": seconds}
            made.append(Stage(KIND, f"last {k}", settings, parent=first[k % SHARED]))
    return made


def expected(k: int) -> int:
    """Return the figure of a simulated combination."""
    return 1000 * (k % SHARED) + k


def memory_mib() -> float:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Dask:
    """A scheduler and workers in processes, which are started again when they are killed.

    Args:
        workers: of one thread each.
        kill_every_s: a worker is killed after so many seconds, at random; 0 kills none.
        kills: so many at most.
        restart_after_s: the scheduler is killed after so many seconds, once; 0 leaves it.
        seed: of the choice.
    """

    def __init__(self, workers: int, kill_every_s: float, kills: int, restart_after_s: float, seed: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._chance, self._over = random.Random(seed), threading.Event()
        self._kill_every_s, self._kills, self._restart_after_s = kill_every_s, kills, restart_after_s
        self.killed = Counter()
        self._scheduler = self._start("scheduler", "--host", self.address, "--dashboard-address", ":0")
        self._workers = [self._worker() for _ in range(workers)]
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def begin(self) -> None:
        """Begin to kill."""
        self._thread.start()

    def close(self) -> None:
        """End all."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for process in (*self._workers, self._scheduler):
            self._kill(process)

    def _start(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]],
            cwd=HERE, env={**os.environ, FAILURES: "20"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _worker(self) -> subprocess.Popen:
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--death-timeout", "60")

    def _kill(self, process: subprocess.Popen) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _watch(self) -> None:
        start = last = time.monotonic()
        while not self._over.wait(0.2):
            now = time.monotonic()
            due = self._kill_every_s and now - last > self._kill_every_s
            if due and self.killed["workers"] < self._kills:
                last = now
                self._kill(self._chance.choice(self._workers))
                self.killed["workers"] += 1
            if self._restart_after_s and now - start > self._restart_after_s and not self.killed["schedulers"]:
                self._kill(self._scheduler)
                self.killed["schedulers"] += 1
                self._scheduler = self._start("scheduler", "--host", self.address, "--dashboard-address", ":0")
            self._workers = [w if w.poll() is None else self._worker() for w in self._workers]


@contextmanager
def engine(options: argparse.Namespace):
    """Give an executor of the engine asked for, and a count of what was killed."""
    if options.engine == "local":
        with LocalExecutor(options.workers) as local:
            yield local, Counter()
        return
    from distributed import Client

    from edgecnn.jobs.dask_executor import Cluster, DaskExecutor

    with ExitStack() as stack:
        dask = Dask(options.workers, options.kill_every, options.kills, options.restart_after, options.seed)
        stack.callback(dask.close)
        with Client(dask.address, timeout=START_S) as client:  # on a busy machine, processes start slowly
            client.wait_for_workers(options.workers, timeout=START_S)
        executor = DaskExecutor(Cluster(scheduler=dask.address, options={}))
        stack.callback(executor.close)
        dask.begin()
        yield executor, dask.killed


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run all jobs; return what was found."""
    wanted, ended, memory = stages(options.jobs, options.seconds), Counter(), []
    places = {stage.digest: k for k, stage in enumerate(wanted)}
    wrong = []
    with engine(options) as (executor, killed):
        loop = Loop(Store(folder), executor, Engine(retries=10), until=None, seen=lambda progress: None)
        list(loop.results(stages(1, 0.0)))  # processes start
        start = time.monotonic()
        for last, _, result in loop.results(wanted):
            k = places[last.digest]
            ended[k] += 1
            good = result.status is Status.OK and result.value.get("number", expected(k)) == expected(k)
            wrong += [] if good else [(last.name, str(result.status), result.text)]
            if sum(ended.values()) % (options.jobs // 10) == 0:
                memory.append(round(memory_mib(), 1))
        wall = time.monotonic() - start
    results = list((folder / "results").glob("*.json"))
    seconds = [json.loads(path.read_text())["run"]["seconds"] for path in results]
    return {
        "engine": options.engine, "workers": options.workers, "combinations": options.jobs, "jobs": len(results),
        "lost": options.jobs - len(ended), "doubled": sum(n > 1 for n in ended.values()), "wrong": wrong,
        "killed": dict(killed), "wall_s": round(wall, 1),
        "overhead_ms": round(1000 * (wall * options.workers - sum(seconds)) / len(results), 1),
        "driver_mib": memory, "load": os.getloadavg()[0],
    }  # fmt: skip


def main(words: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the figures; status 1 where a result was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("local", "dask"), default="dask")
    parser.add_argument("--jobs", type=int, default=1000, help="combinations (default 1000)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a simulated stage (default 0.05)")
    parser.add_argument("--kill-every", type=float, default=5.0, metavar="SECONDS", help="0: none (default 5)")
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="so many at most")
    parser.add_argument("--restart-after", type=float, default=15.0, metavar="SECONDS", help="0: never (default 15)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args(words)
    os.chdir(HERE)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    text = json.dumps(found, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    if found["lost"] or found["doubled"] or found["wrong"]:
        raise SystemExit(1)
    return found


if __name__ == "__main__":
    main()
