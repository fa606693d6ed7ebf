"""Where shards are made: in this process, in processes beside it, or over Ray. The files are the same."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

from slotid_core.errors import SlotIDError
from training.data.clip import Bench
from training.data.shards import ShardInfo, ShardJob, make_shard
from training.settings import Settings

Engine = Literal["local", "ray"]
Made = Iterator[tuple[ShardJob, ShardInfo]]


def make_all(
    bench: Bench, jobs: Sequence[ShardJob], *, engine: Engine, workers: int, progress: Callable[[int], None]
) -> Made:
    """Make the shards and give each when it is done, in any order.

    Args:
        bench: what this process works with; the others make their own from the same settings.
        progress: called with the number of videos that were done since.

    Raises:
        SlotIDError: see :func:`make_shard`; a process died; or Ray is not installed.
    """
    if not jobs:
        return iter(())
    if engine == "ray":
        return _over_ray(bench.settings, jobs, workers, progress)
    if workers > 1:
        return _beside(bench.settings, jobs, workers, progress)
    return ((job, make_shard(bench, job, lambda: progress(1))) for job in jobs)


def _beside(settings: Settings, jobs: Sequence[ShardJob], workers: int, progress: Callable[[int], None]) -> Made:
    # Spawned, not forked: neither CUDA nor the libraries' threads survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _set_up, (Bench, settings.to_dict())) as pool:
        futures = {pool.submit(_make, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                info = future.result()
                progress(len(futures[future].videos))
                yield futures[future], info
        except BrokenProcessPool as error:
            raise SlotIDError(
                "A worker process died, most likely for want of memory. Finished shards are kept: run again with fewer "
                "--workers."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_bench: Bench


def _set_up(make_bench: Callable[[Settings], Bench], settings: dict[str, Any]) -> None:
    global _bench
    _bench = make_bench(Settings.model_validate(settings))


def _make(job: ShardJob) -> ShardInfo:
    return make_shard(_bench, job)


class _RayUnit:
    """What a Ray actor keeps between shards."""

    def __init__(self, make_bench: Callable[[Settings], Bench], settings: dict[str, Any]):
        self._bench = make_bench(Settings.model_validate(settings))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"number": row["number"], "info": make_shard(self._bench, row["job"]), "problem": None}
        except SlotIDError as error:  # Ray would wrap it in pages of its own
            return {"number": row["number"], "info": None, "problem": str(error)}


def _over_ray(settings: Settings, jobs: Sequence[ShardJob], workers: int, progress: Callable[[int], None]) -> Made:
    if importlib.util.find_spec("ray") is None:
        raise SlotIDError('--engine ray needs the package ray: pip install "ray[data]", or leave --engine out.')
    import ray

    if not ray.is_initialized():
        # Ray sets the number of threads to 1 otherwise, and a solver's last bits depend on it.
        threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
        ray.init(runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}}, log_to_driver=False)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    rows = ray.data.from_items([{"number": n, "job": job} for n, job in enumerate(jobs)], override_num_blocks=len(jobs))
    done = rows.map(_RayUnit, fn_constructor_args=(Bench, settings.to_dict()), concurrency=workers, num_gpus=gpus)
    for row in done.iter_rows():
        if row["problem"] is not None:
            raise SlotIDError(row["problem"])
        job = jobs[row["number"]]
        progress(len(job.videos))
        yield job, row["info"]
