"""One shard of a cache: its clips in, one file out. A function of its job and the settings, wherever it runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slotid_core import safe_file
from slotid_core.errors import SlotIDError
from training.data.cache import EMPTY_TEXT, SHARDS, VERSION
from training.data.clip import Bench, prepare_clip
from training.data.shard_file import check_content, open_shard, tensor_hash, tensor_name
from training.data.sources import Reject, SourceVideo
from training.text import most_text_tokens

_KIND = "training shard"


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What one shard is made of."""

    file: str
    """Its name."""
    key: str
    """SHA-256 of everything that shapes it."""
    videos: tuple[SourceVideo, ...]


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What a finished shard says of itself: what became of each of its videos."""

    clips: tuple[dict[str, Any], ...]
    """A clip each: ``id``, ``index``, ``sha256`` and the facts of :class:`training.data.clip.PreparedClip`."""
    rejects: tuple[Reject, ...]


def plan_shards(
    videos: Sequence[SourceVideo], hashes: Sequence[str], shaped_by: dict[str, Any], clips_per_shard: int
) -> list[ShardJob]:
    """The k-th shard holds the k-th so-many videos.

    Args:
        videos: sorted by id.
        hashes: of the videos' files.
        shaped_by: plain data: what else decides the content.
    """
    jobs = []
    for start in range(0, len(videos), clips_per_shard):
        part = slice(start, start + clips_per_shard)
        described = [
            {"id": v.id, "sha256": h, "caption": v.caption, "hint": v.person_hint and v.person_hint.digest()}
            for v, h in zip(videos[part], hashes[part], strict=True)
        ]
        document = json.dumps({"version": VERSION, "shaped_by": shaped_by, "videos": described}, sort_keys=True)
        jobs.append(
            ShardJob(
                file=f"shard-{start // clips_per_shard:05d}{safe_file.SUFFIX}",
                key=hashlib.sha256(document.encode()).hexdigest(),
                videos=tuple(videos[part]),
            )
        )
    return jobs


def make_shard(bench: Bench, job: ShardJob, progress: Callable[[], None] = lambda: None) -> ShardInfo:
    """Prepare the job's videos and write its file; ``progress`` is called after each video.

    Raises:
        SlotIDError: a model is not there or broken, the device's memory is too small, or the folder can't be written.
    """
    tensors: dict[str, Tensor] = {}
    clips: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    with _repeatable():
        for index, video in enumerate(job.videos):
            try:
                prepared = prepare_clip(bench, video)
            except torch.OutOfMemoryError as error:
                raise SlotIDError(
                    f"{bench.device} has too little memory to prepare {video.id}: {error} Finished shards are kept: "
                    "run again with fewer --workers, which share it, with smaller data.sizes or data.lengths, or end "
                    "what else is on it."
                ) from error
            if isinstance(prepared, Reject):
                rejects.append(prepared)
            else:
                sha256 = {name: tensor_hash(tensor) for name, tensor in prepared.tensors.items()}
                clips.append({"id": video.id, "index": index, "sha256": sha256, **prepared.facts})
                tensors |= {tensor_name(index, name): tensor for name, tensor in prepared.tensors.items()}
            progress()
        tensors[EMPTY_TEXT] = bench.text.encode("", most_text_tokens(bench.settings)).text_LE
    info = {"key": job.key, "clips": clips, "rejects": [asdict(reject) for reject in rejects]}
    safe_file.write(bench.settings.data.cache / SHARDS / job.file, _KIND, VERSION, tensors, info)
    return _info(json.loads(json.dumps(info)))


def finished_shard(folder: Path, job: ShardJob) -> ShardInfo | None:
    """What the job's file says, all of it checked; ``None`` where it is not there or another job's.

    Raises:
        SlotIDError: the file is damaged.
    """
    path = folder / SHARDS / job.file
    if not path.is_file():
        return None
    with safe_file.SafeFile(path, _KIND, VERSION) as file:
        info = file.info
    if info.get("key") != job.key:
        return None
    check_content(path)
    return _info(info)


def thumbnails(folder: Path, shard: str, index: int) -> dict[str, bytes]:
    """JPEG files of a clip's ``reference``, ``portrait`` and ``target``."""
    with open_shard(folder / SHARDS / shard) as file:
        return {
            name: file.get_tensor(tensor_name(index, f"thumbnail.{name}")).numpy().tobytes()
            for name in ("reference", "portrait", "target")
        }


def _info(info: dict[str, Any]) -> ShardInfo:
    return ShardInfo(clips=tuple(info["clips"]), rejects=tuple(Reject(**reject) for reject in info["rejects"]))


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """One thread and no choice of kernels by their speed: sums in another order have other last bits."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(1)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = before
