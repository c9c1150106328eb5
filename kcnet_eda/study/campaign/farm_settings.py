"""The block ``cluster:`` of a study file: what a job of the batch system asks for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcnet_eda.config import Settings

_Text = Annotated[str, Field(min_length=1)]


class Queue(Settings):
    """One batch job holds as many single-threaded workers as it has cores. Each simulator is a process beside its
    worker, so ``memory`` is for both."""

    queue: Annotated[_Text | None, Field(description="queue (LSF) or partition (Slurm); the site's own if not given")]
    cores: Annotated[int, Field(ge=1, le=1024, description="cores of a job, a worker on each")] = 1
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$", description="memory of a job, such as 4 GB")]
    walltime: Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d$", description="time limit of a job, HH:MM:SS")]
    jobs: Annotated[int, Field(ge=1, le=10_000, description="jobs at once; one that ends is replaced")] = 1
    account: Annotated[_Text | None, Field(description="account (Slurm) or project (LSF)")] = None
    interface: Annotated[_Text | None, Field(description="network interface by which workers and scheduler talk")] = (
        None
    )
    scratch: Annotated[_Text | None, Field(description="local folder of the nodes for simulations")] = None
    logs: Annotated[_Text | None, Field(description="folder for the jobs' own logs")] = None
    python: Annotated[_Text | None, Field(description="Python on the nodes, with kcnet_eda; this one if not given")] = (
        None
    )
    prologue: Annotated[tuple[str, ...], Field(description="shell lines before the worker, such as 'module load'")] = ()
    directives: Annotated[tuple[str, ...], Field(description="further options of the batch system")] = ()
    lsf_units: Annotated[
        Literal["kb", "mb", "gb"] | None, Field(description="LSF's unit of memory, where lsf.conf does not tell")
    ] = None
