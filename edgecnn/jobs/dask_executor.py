"""Jobs on a Dask cluster. Dask places and repeats them; on a worker, each still runs in a process of its own.

A file that a job reads, and a worker does not see, is scattered once and published as a dataset. Each worker that lacks
it fetches it once, and keeps it by its digest.

Sources: distributed's documentation, "Resilience" (lost workers, ``retries``), "Worker Resources" (boards), "Data
Locality" (``scatter``) and "Publish Datasets".
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from edgecnn.errors import EdgecnnError, InputError, MissingDependencyError
from edgecnn.files import scratch
from edgecnn.jobs.local import LocalExecutor
from edgecnn.jobs.task import RETRIED, Outcome, Status, Task, one_line
from edgecnn.jobs.transfer import FileInput, inputs_of, located, pack, shared, unpack

INSTALL = "Dask is not installed: pip install 'edgecnn[dask]'"
CONNECT_S = 10  # for a scheduler to answer
AHEAD = 64  # tasks that are given at least, since a cluster may grow
CACHE = "edgecnn-files"  # in the folder of a worker, which Dask removes with it
PUBLISHED = "edgecnn/"  # how the names of its datasets begin; the id of the driver's client and the digest follow
CONTENT = "content"  # there, of a file or folder
FETCH_S = 60  # for Dask to bring a file to a worker
FETCHED = "edgecnn-fetched"  # topic of Dask's events: worker and digest of every file that was fetched
_fetching = threading.Lock()  # of several threads of a worker, one fetches


class JobLostError(Exception):
    """A job that may go better another time: Dask runs it again, as often as its ``retries`` say."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def run_task(task: Task, driver: str) -> Outcome | tuple[FileInput, ...]:
    """Run a task, which a driver published files for, on a worker, in a process of its own.

    Returns:
        What came of it, or the files that it reads and this worker cannot get, until the executor publishes them.

    Raises:
        JobLostError: its process died, or it exceeded a limit.
    """
    places = {file: _fetched(file, driver) for file in inputs_of(task.arguments)}
    missing = tuple(file for file, place in places.items() if place is None)
    if missing:
        return missing
    arguments = located(task.arguments, lambda file: places[file] or file.path)
    with scratch() as folder, LocalExecutor(workers=1) as local:
        log = folder / "log"
        memory_mib = task.memory_mib or _worker_memory_mib()
        local.submit(replace(task, arguments=arguments, retries=0, memory_mib=memory_mib, log=log))
        while not (ended := local.completed()):
            pass
        outcome = replace(ended[0], log=log.read_bytes() if log.exists() else b"")
    if outcome.status in RETRIED:
        raise JobLostError(outcome)
    return outcome


def _fetched(file: FileInput, driver: str) -> Path | None:
    """Return where a file is on this worker: under its own path if that has the same content, else in the cache."""
    from distributed import get_client, get_worker
    from distributed.client import FutureCancelledError

    if shared(file):
        return file.path
    worker = get_worker()
    folder = Path(worker.local_directory) / CACHE / file.digest
    with _fetching:
        if not folder.exists():
            client = get_client()
            future = client.get_dataset(_published(file, driver), default=None)
            if future is None or not client.who_has([future])[future.key]:  # the worker that held it may have died
                return None
            try:
                unpack(future.result(FETCH_S), folder)
            except (TimeoutError, FutureCancelledError):
                return None
            worker.log_event(FETCHED, [worker.address, file.digest])
        if file.beside:
            return folder / CONTENT / file.path.name
        named = folder / "named" / file.path.name  # the same content may be known by several names
        if not named.exists():
            named.parent.mkdir(exist_ok=True)
            named.symlink_to(folder / CONTENT)
    return named


def _published(file: FileInput, driver: str) -> str:
    """Return the name of a packed file among Dask's published datasets."""
    return f"{PUBLISHED}{driver}/{file.digest}"


def _clients(dask_scheduler: Any) -> list[str]:
    """Return the ids of the clients that are connected; ``Client.run_on_scheduler`` calls this."""
    return list(dask_scheduler.clients)


def _worker_memory_mib() -> int | None:
    """Return one thread's share of the memory limit of this worker; ``None`` where it has none."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    return None if not limit else int(limit) // worker.state.nthreads // 2**20


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Which cluster.

    Attributes:
        scheduler: address of one that runs, or a scheduler file; ``None``: ``kind`` makes one.
        kind: a class, ``dask.distributed.LocalCluster``, ``dask_jobqueue.SLURMCluster``.
        options: its arguments.
        workers: that it is scaled to.
        wait_s: how long the first worker, and later a scheduler or workers that are gone, are waited for.
    """

    scheduler: str | None = None
    kind: str | None = None
    options: Mapping[str, Any]
    workers: int | None = None
    wait_s: float = 120.0


class DaskExecutor:
    """Runs tasks on the workers of a Dask scheduler.

    Args:
        cluster: which one.

    Raises:
        InputError: no scheduler answers, or it has no workers.
        MissingDependencyError: Dask or the class of the cluster is not installed.
    """

    shares_files = False

    def __init__(self, cluster: Cluster) -> None:
        try:
            import distributed
        except ImportError:
            raise MissingDependencyError(INSTALL) from None
        for name in ("distributed", "distributed.client"):  # what is wrong is said in one line, by us
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._wait_s = cluster.wait_s
        self._own = _made(cluster) if cluster.kind is not None else None
        try:
            with warnings.catch_warnings():  # of versions, which are checked by ``on_workers``
                warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
                self.client = _client(distributed, self._own, cluster.scheduler)
            self._wait_for_workers(distributed, cluster)
        except BaseException:
            if self._own is not None:
                self._own.close()
            raise
        self.window = max(AHEAD, 2 * self.at_once)
        self._gone = (distributed.client.FutureCancelledError, distributed.comm.CommClosedError)  # with its worker
        self._resources: set[str] = set()
        self._ended: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        self._tasks: dict[str, tuple[Task, int, Any]] = {}  # by key: the task, how often it was given, its future
        self._workers_seen = time.monotonic()
        self._published: dict[str, Any] = {}  # by name: the future of a packed file
        self._forget_the_dead()

    @property
    def at_once(self) -> int:
        """See ``Executor``."""
        return sum(self.client.nthreads().values())

    @property
    def address(self) -> str:
        """Return the scheduler's address."""
        return str(self.client.scheduler.address)

    @property
    def dashboard(self) -> str:
        """Return the address of the dashboard."""
        return str(self.client.dashboard_link)

    def on_workers(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Return what a function returns on every worker, by the worker's address.

        Raises:
            InputError: a worker cannot run it: it has no edgecnn, or another.
        """
        try:
            found: dict[str, Any] = self.client.run(call, *arguments)
        except Exception as error:  # noqa: BLE001  # whatever a worker of another version raises
            raise InputError(
                f"a worker of {self.address} cannot run this edgecnn ({type(error).__name__}: {one_line(error)}); "
                "start workers with the same versions of edgecnn, Python and Dask"
            ) from None
        return found

    def resources(self) -> dict[str, Collection[str]]:
        """Return the names of the resources that each worker was started with, by its address."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return {address: tuple(worker["resources"]) for address, worker in workers.items()}

    def demand(self, names: Collection[str]) -> None:
        """Set which ``Task.resource`` are resources of workers; each task of one takes one of it."""
        self._resources = set(names)

    def submit(self, task: Task) -> None:
        """Take a task."""
        self._give(task, 1)

    def completed(self, timeout: float | None = None) -> list[Outcome]:
        """See ``Executor``; what a scheduler that went took with it is given to it again when it is back.

        Raises:
            InputError: the scheduler does not come back, or all workers are gone and none comes.
        """
        found: list[Outcome] = []
        until = None if timeout is None else time.monotonic() + timeout
        while self._tasks and not found:
            left = 1.0 if until is None else min(1.0, until - time.monotonic())
            if left <= 0:
                break
            self._require_scheduler()
            try:
                key, number, future = self._ended.get(timeout=left)
                self._workers_seen = time.monotonic()
                found += self._outcomes(key, number, future)
                while True:
                    found += self._outcomes(*self._ended.get_nowait())
            except queue.Empty:
                if not found:
                    self._require_workers()
        return found

    def close(self) -> None:
        """Cancel what waits; a job that a worker runs ends there."""
        futures = [future for _, _, future in self._tasks.values()]
        self._tasks.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures, force=True)
        if self._published and self.client.status == "running":
            self.client.unpublish_dataset(list(self._published))
        self.client.close(timeout=CONNECT_S)
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _give(self, task: Task, number: int) -> None:
        board = {task.resource: 1} if task.resource in self._resources else None
        key = f"{task.name}-{task.key}-{number}"
        future = self.client.submit(
            run_task, task, self.client.id, key=key, pure=False, retries=task.retries, resources=board
        )
        self._tasks[task.key] = task, number, future
        future.add_done_callback(lambda ended: self._ended.put((task.key, number, ended)))

    def _publish(self, file: FileInput) -> None:
        """Scatter a file, packed, to one worker, unless one holds it, and publish it until this executor is closed.

        Raises:
            InputError: the scheduler or its workers do not come back.
        """
        name = _published(file, self.client.id)
        held, since = self._published.get(name), time.monotonic()
        while held is None or held.status != "finished":
            self._require_scheduler()
            if time.monotonic() - since > self._wait_s:
                raise InputError(f"no worker of {self.address} takes {file.path}; start one, and run the same again")
            with suppress(OSError, TimeoutError):  # the scheduler or all workers have just gone
                held = self.client.scatter(pack(file.path, CONTENT, file.beside), hash=False, timeout=CONNECT_S)
                self.client.publish_dataset(held, name=name, override=True)
                self._published[name] = held

    def _forget_the_dead(self) -> None:
        """Remove the files of drivers that are connected no more, which could not do it themselves."""
        with suppress(OSError, TimeoutError):  # the scheduler has just gone, and they with it
            names = [name for name in self.client.list_datasets() if str(name).startswith(PUBLISHED)]
            if names:
                alive = self.client.run_on_scheduler(_clients)
                self.client.unpublish_dataset([name for name in names if name.split("/")[1] not in alive])

    def _outcomes(self, key: str, number: int, future: Any) -> list[Outcome]:
        """Return the outcome of a future; none where it was another's, or the scheduler went and it is given again."""
        if key not in self._tasks or self._tasks[key][1] != number:
            return []
        task = self._tasks[key][0]
        if future.status in ("cancelled", "lost", "pending"):
            self._require_scheduler(now=True)
            self._give(task, number + 1)
            return []
        try:
            outcome: Outcome | tuple[FileInput, ...] = future.result()
        except JobLostError as error:
            outcome = replace(error.outcome, attempts=task.retries + 1)
        except self._gone:
            self._give(task, number + 1)
            return []
        except Exception as error:  # noqa: BLE001  # Dask's own: the worker died as often as Dask allows
            text = f"{type(error).__name__}: {one_line(error)}"
            outcome = Outcome(key=key, status=Status.LOST, text=text, attempts=task.retries + 1)
        if isinstance(outcome, tuple):
            for file in outcome:
                self._publish(file)
            self._give(task, number + 1)
            return []
        del self._tasks[key]
        if task.log is not None and outcome.log:
            task.log.write_bytes(outcome.log)
        return [replace(outcome, log=b"")]

    def _require_scheduler(self, *, now: bool = False) -> None:
        """Wait, where the scheduler is gone, until it is back.

        Raises:
            InputError: it was gone for too long.
        """
        since = time.monotonic()
        while self.client.status != "running":
            if self.client.status == "closed" or time.monotonic() - since > self._wait_s:
                raise InputError(
                    f"the scheduler {self.address} is gone; results are kept: start it, and run the same again"
                )
            time.sleep(0.2)

    def _require_workers(self) -> None:
        """Note whether there are workers, which another may start.

        Raises:
            InputError: there were none for too long.
        """
        with suppress(OSError, TimeoutError):  # the scheduler is gone
            if self.client.nthreads():
                self._workers_seen = time.monotonic()
        if time.monotonic() - self._workers_seen > self._wait_s:
            raise InputError(
                f"the scheduler {self.address} has no workers any more; results are kept: "
                f"start some with `dask worker {self.address}`, and run the same again"
            )

    def _wait_for_workers(self, distributed: Any, cluster: Cluster) -> None:
        try:
            self.client.wait_for_workers(1, timeout=cluster.wait_s if self._own is not None else CONNECT_S)
        except (TimeoutError, distributed.TimeoutError):
            address = self.address
            self.client.close()
            raise InputError(
                f"the scheduler {address} has no workers; start some with `dask worker {address}`"
            ) from None


def _client(distributed: Any, own: Any, scheduler: str | None) -> Any:
    if scheduler is not None and scheduler.endswith(".json") and not Path(scheduler).is_file():
        raise InputError(  # Dask waits for it without end
            f"there is no scheduler file {scheduler}; start one with `dask scheduler --scheduler-file {scheduler}`"
        )
    try:
        if own is not None:
            return distributed.Client(own)
        if scheduler is not None and scheduler.endswith(".json"):
            return distributed.Client(scheduler_file=scheduler, timeout=CONNECT_S)
        return distributed.Client(scheduler, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler} ({type(error).__name__}); start one with `dask scheduler`, "
            "or leave it out to run here"
        ) from None


def cluster_class(kind: str) -> Any:
    """Return the class of a cluster that a file names.

    Raises:
        InputError: its module has no such class.
        MissingDependencyError: Dask or its module is not installed.
    """
    module, _, name = kind.rpartition(".")
    try:
        import_module("distributed")
    except ImportError:
        raise MissingDependencyError(INSTALL) from None
    try:
        return getattr(import_module(module), name)
    except (ImportError, ValueError):
        package = module.partition(".")[0].replace("_", "-")
        raise MissingDependencyError(f"cluster {kind} cannot be imported: pip install {package}") from None
    except AttributeError:
        raise InputError(f"cluster {kind}: {module} has no {name}") from None


def _made(cluster: Cluster) -> Any:
    """Make a cluster of a class that a file names."""
    kind, options = cluster_class(str(cluster.kind)), dict(cluster.options)
    local = kind.__name__ == "LocalCluster"
    if local:
        own = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
        options = {"threads_per_worker": 1, "n_workers": cluster.workers, **own, **options}
    try:
        made = kind(**options)
        if cluster.workers is not None and not local:
            made.scale(cluster.workers)
    except EdgecnnError:
        raise
    except Exception as error:  # noqa: BLE001  # of the cluster's class: it may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(f"cluster {cluster.kind}: {type(cause).__name__}: {one_line(cause)}") from None
    return made
