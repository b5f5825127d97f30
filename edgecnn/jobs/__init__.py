"""Jobs: functions that run in processes of their own, here or on a cluster, each with limits of memory and time.

    task (what to run, what came of it) ─► forkserver (one process per job) ─► local ─► dask_executor
                                                        transfer (files that jobs read) ─┘

``run_trials``, ``edgecnn.benchmark`` and ``edgecnn.sweep`` give their work to an ``Executor``, and do not know which.
"""

from __future__ import annotations

from edgecnn.jobs.local import InProcess, LocalExecutor
from edgecnn.jobs.task import Executor, Outcome, Status, Task
from edgecnn.jobs.transfer import FileInput

__all__ = ["Executor", "FileInput", "InProcess", "LocalExecutor", "Outcome", "Status", "Task"]
