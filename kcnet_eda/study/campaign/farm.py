"""Where a campaign's runs happen: worker processes of this machine, a dask scheduler, or jobs of Slurm or LSF."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.study.campaign.farm_settings import Queue

#: Batch systems that ``--cluster`` knows.
CLUSTERS = ("slurm", "lsf")
_CONNECT_S = 20.0


@dataclass(frozen=True)
class Farm:
    """Local worker processes, as many as ``workers``; or those of the dask scheduler at the address ``scheduler``; or
    jobs of the batch system ``cluster``, which are as ``queue`` says."""

    workers: int = 1
    scheduler: str | None = None
    cluster: str | None = None
    queue: Queue | None = None

    @property
    def local(self) -> bool:
        """Whether the workers are of this machine alone."""
        return self.scheduler is None and self.cluster is None

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A dask client; what was started for it ends with the block.

        Raises
        ------
        KcnetError
            The scheduler does not answer, or the batch system is not here.
        """
        import dask
        from distributed import Client, LocalCluster

        # What dask logs while it starts and stops is no message to a user; what fails is told by its results.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with dask.config.set({"distributed.comm.timeouts.connect": _CONNECT_S}):
            if self.scheduler is not None:
                try:
                    client = Client(self.scheduler, timeout=_CONNECT_S)
                except (OSError, ValueError) as error:
                    raise KcnetError(
                        f"--scheduler {self.scheduler}: no dask scheduler answers there ({error}). Start one with "
                        "'dask scheduler', and workers with 'dask worker ADDRESS --nthreads 1'."
                    ) from None
                with client:
                    yield client
                return
            if self.cluster is not None:
                cluster = batch_cluster(self.cluster, self.queue)
                assert self.queue is not None  # batch_cluster has refused that
                cluster.adapt(minimum_jobs=self.queue.jobs, maximum_jobs=self.queue.jobs)
            else:
                # A worker's memory is small and its simulator's is not counted: dask's limit would mean nothing.
                cluster = LocalCluster(
                    n_workers=self.workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",  # any free port: campaigns beside each other are usual
                    silence_logs=logging.CRITICAL,
                )
            with cluster, Client(cluster) as client:
                yield client


def make_farm(queue: Queue | None, workers: int, scheduler: str | None, cluster: str | None) -> Farm:
    """The farm of the command's options and of the study file's ``cluster:`` block.

    Raises
    ------
    InvalidInputError
        They contradict each other, or the block is missing.
    """
    problems = []
    if scheduler is not None and cluster is not None:
        problems.append("both --scheduler and --cluster are given; a campaign runs in one place")
    if scheduler is not None and "://" not in scheduler:
        problems.append(f"--scheduler {scheduler!r} is no address such as tcp://host:8786")
    if cluster is not None and cluster not in CLUSTERS:
        problems.append(f"--cluster {cluster!r} is neither of {', '.join(CLUSTERS)}")
    if cluster is not None and queue is None:
        problems.append("--cluster needs the block 'cluster:' in the study file")
    if problems:
        raise InvalidInputError("where to run", problems, "docs/campaigns.md shows each of the three ways.")
    return Farm(workers, scheduler, cluster, queue)


def batch_cluster(name: str, queue: Queue | None) -> Any:
    """The dask-jobqueue cluster, no job of it submitted yet; its ``job_script()`` is what will be.

    Raises
    ------
    KcnetError
        dask-jobqueue is not installed.
    """
    assert queue is not None  # make_farm has asked for it
    try:
        from dask_jobqueue import LSFCluster, SLURMCluster
    except ModuleNotFoundError:
        raise KcnetError(f"--cluster {name} needs dask-jobqueue: pip install 'kcnet_eda[cluster]'.") from None
    common: dict[str, Any] = {
        "queue": queue.queue,
        "cores": queue.cores,
        "processes": queue.cores,
        "memory": queue.memory,
        "walltime": queue.walltime,
        "interface": queue.interface,
        "local_directory": queue.scratch,
        "log_directory": queue.logs,
        "python": queue.python,
        "job_script_prologue": list(queue.prologue),
        "job_extra_directives": list(queue.directives),
        "scheduler_options": {"dashboard_address": ":0"},
    }
    given = {option: value for option, value in common.items() if value is not None}
    if name == "slurm":
        return SLURMCluster(**given, **({"account": queue.account} if queue.account else {}))
    given["walltime"] = queue.walltime.rpartition(":")[0]  # LSF has no seconds
    more = {"project": queue.account, "lsf_units": queue.lsf_units}
    return LSFCluster(**given, **{option: value for option, value in more.items() if value is not None}, use_stdin=True)
