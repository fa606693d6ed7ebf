"""From settings to a finished cache: resumable at any point, and the same bytes however often it was ended."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slotid_core.errors import SlotIDError
from training.data.cache import MANIFEST, SETTINGS, SHARDS, Entry, Manifest, Say, write_text
from training.data.clip import Bench
from training.data.engines import Engine, make_all
from training.data.hashes import FileHashes
from training.data.origin import (
    check_models,
    check_settings,
    dataset_folder,
    model_hashes,
    shaping_settings,
    split_settings,
)
from training.data.shards import ShardInfo, ShardJob, finished_shard, plan_shards
from training.data.sources import Reject, SourceVideo, open_source
from training.data.summary import write_summary
from training.lock import alone_in
from training.settings import Settings

REJECTS, SUMMARY, VIDEOS = "rejects.json", "summary.html", "videos.json"
_FEWEST_PEOPLE = 4
# As training.atomic names what is half written.
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{12}\.\w+")


def make_cache(
    settings: Settings, *, engine: Engine = "local", workers: int = 1, bench: Bench | None = None, say: Say = print
) -> Manifest:
    """Make the cache of these settings, or what is missing of it.

    Shards that are finished and were made from the same videos, captions, models and settings stay as they are.

    Args:
        bench: what this process works with; made from the settings where left out.
        say: gets a line for each video that is left out, and for each shard that was damaged.

    Raises:
        SlotIDError: a folder holds another cache, the dataset is empty or has too few people, a model is not there,
            a file can't be read or written, or another process makes this cache. Whatever was finished stays.
    """
    folder = settings.data.cache
    hashes = FileHashes(folder)
    models = model_hashes(settings, hashes)
    bench = Bench(settings) if bench is None else bench
    shaped_by = {"settings": shaping_settings(settings), "models": models, "faces": bench.faces_name}
    fix = "Wait for it, which makes the same cache, or give this one another data.cache."
    with alone_in(folder, "preparation", fix, say):  # it would sweep away what the other is writing
        return _make_cache(bench, hashes, shaped_by, engine, workers, say)


def _make_cache(
    bench: Bench, hashes: FileHashes, shaped_by: dict[str, Any], engine: Engine, workers: int, say: Say
) -> Manifest:
    settings, models = bench.settings, shaped_by["models"]
    folder = settings.data.cache
    _claim(folder, shaped_by)
    videos, known_rejects = open_source(settings).videos()
    if not videos and not known_rejects:
        raise SlotIDError(f"There are no videos in {settings.data.source}. docs/data.md says how to lay them out.")
    try:
        sha256 = {v.id: hashes.of(v.path) for v in tqdm(videos, desc="reading", unit="video", leave=False)}
    finally:
        hashes.save()
    _check_dataset(settings, set(sha256.values()))
    write_text(folder / VIDEOS, json.dumps(sorted(set(sha256.values())), indent=0) + "\n")
    jobs = plan_shards(videos, list(sha256.values()), shaped_by, settings.data.clips_per_shard)
    _sweep(folder, jobs)
    for reject in known_rejects:
        say(_line(reject))
    infos = _make(bench, jobs, engine, workers, say)

    rejects = sorted([*known_rejects, *(r for info in infos.values() for r in info.rejects)], key=lambda r: r.id)
    by_id = {video.id: video for video in videos}
    people = {by_id[clip["id"]].person for info in infos.values() for clip in info.clips}
    held_out = hold_out(people, settings.data.held_out, settings.data.seed)
    entries = sorted(
        (
            _entry(clip, by_id[clip["id"]], file, held_out, sha256, dataset_folder(settings))
            for file, info in infos.items()
            for clip in info.clips
        ),
        key=lambda entry: entry.id,
    )
    assert len(entries) + len(rejects) == len(videos) + len(known_rejects), "a video got lost"
    manifest = Manifest(
        settings={**shaped_by["settings"], **split_settings(settings)},
        facts=_facts(entries, rejects, models, bench.faces_name, settings.data.fps),
        shards={job.file: {"key": job.key, "bytes": (folder / SHARDS / job.file).stat().st_size} for job in jobs},
        entries=tuple(entries),
        rejects=tuple(rejects),
    )
    write_text(folder / REJECTS, json.dumps([asdict(r) for r in rejects], indent=1, ensure_ascii=False) + "\n")
    write_summary(folder / SUMMARY, manifest, folder)
    if len(people) < _FEWEST_PEOPLE:
        raise SlotIDError(
            f"{len(people)} people are usable, at least {_FEWEST_PEOPLE} are needed: two to hold out, and two to train "
            f"on. {folder / SUMMARY} says what was left out and why; data.person says who is who."
        )
    write_text(folder / MANIFEST, manifest.to_json())
    return manifest


def what_is_there(manifest: Manifest, folder: Path) -> str:
    """A finished cache in a sentence, and where to look at it."""
    facts = manifest.facts
    left_out = ", ".join(f"{count} {reason}" for reason, count in facts["rejected"].items())
    return (
        f"{facts['usable']} of {facts['videos']} videos are usable{f' (left out: {left_out})' if left_out else ''}, "
        f"{facts['people']} people, {len(facts['held_out_people'])} of them held out. Look at {folder / SUMMARY}"
    )


def hold_out(people: set[str], share: float, seed: int) -> set[str]:
    """The people who are never trained on: a share, at least two, in the order of a hash of seed and name."""
    ordered = sorted(people, key=lambda person: hashlib.sha256(f"{seed}/{person}".encode()).digest())
    return set(ordered[: max(2, math.ceil(share * len(ordered)))])


def _claim(folder: Path, shaped_by: dict[str, Any]) -> None:
    """The folder is for these settings alone: a slip of the pen must not undo days of work."""
    path = folder / SETTINGS
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            settings, models, faces = dict(stored["settings"]), dict(stored["models"]), stored["faces"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise SlotIDError(f"{path} is damaged ({error!r}). Delete the folder to make the cache anew.") from error
        check_settings(folder, settings, shaped_by["settings"])
        check_settings(folder, {"face backend": faces}, {"face backend": shaped_by["faces"]})
        check_models(folder, models, shaped_by["models"])
    elif (folder / SHARDS).exists():
        raise SlotIDError(f"{folder} has shards and no {SETTINGS}. Give another data.cache, or delete the folder.")
    else:
        write_text(path, json.dumps(shaped_by, indent=1, sort_keys=True) + "\n")


def _check_dataset(settings: Settings, videos: set[str]) -> None:
    """Nor must a slip in ``data.source``, or captions that are not there for once: shards of other videos are swept
    away, also those of a cache that is not finished. Videos that are rendered into the cache follow from its settings.
    """
    path, source = settings.data.cache / VIDEOS, settings.data.source
    if source is None or not path.is_file():
        return
    try:
        before = list(json.loads(path.read_text(encoding="utf-8")))
        shared = not videos.isdisjoint(before)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SlotIDError(
            f"{path} is damaged ({error!r}), which says what the cache was made from. If data.source is right, delete "
            "that file."
        ) from error
    if before and not shared:
        raise SlotIDError(
            f"The cache {path.parent} was made from other videos: none of its {len(before)} is among the {len(videos)} "
            f"with a caption in {source}. Set data.source back, give another data.cache, or delete the folder to make "
            "it anew."
        )


def _sweep(folder: Path, jobs: Sequence[ShardJob]) -> None:
    """Remove what a run that was ended left half written, and shards of a dataset that had more videos."""
    wanted = {job.file for job in jobs}
    for path in (folder / SHARDS).glob("*"):
        if path.name not in wanted:
            path.unlink()
    for path in [*folder.glob(".*"), *folder.glob("videos/**/.*")]:
        if path.is_file() and _TEMPORARY.fullmatch(path.name):
            path.unlink()


def _make(bench: Bench, jobs: Sequence[ShardJob], engine: Engine, workers: int, say: Say) -> dict[str, ShardInfo]:
    """All shards' infos by file name."""
    folder = bench.settings.data.cache
    infos: dict[str, ShardInfo] = {}
    with tqdm(total=sum(len(job.videos) for job in jobs), desc="preparing", unit="video") as bar:

        def tell(line: str) -> None:
            with bar.external_write_mode():
                say(line)

        for job in jobs:
            try:
                info = finished_shard(folder, job)
            except SlotIDError as error:
                tell(f"{job.file} is made anew: {error}")
                info = None
            if info is not None:
                infos[job.file] = info
                bar.update(len(job.videos))
        missing = [job for job in jobs if job.file not in infos]
        for job, info in make_all(bench, missing, engine=engine, workers=workers, progress=bar.update):
            infos[job.file] = info
            for reject in info.rejects:
                tell(_line(reject))
    return {job.file: infos[job.file] for job in jobs}


def _line(reject: Reject) -> str:
    return f"left out: {reject.id}: {reject.reason} ({reject.detail})"


def _entry(
    clip: dict[str, Any], video: SourceVideo, file: str, held_out: set[str], sha256: dict[str, str], root: Path
) -> Entry:
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in clip.items()}
    return Entry(
        **facts,
        person=video.person,
        caption=video.caption,
        video=Path(os.path.relpath(video.path, root)).as_posix(),
        video_sha256=sha256[video.id],
        held_out=video.person in held_out,
        shard=file,
    )


def _facts(
    entries: Sequence[Entry], rejects: Sequence[Reject], models: dict[str, Any], faces: str, fps: float
) -> dict[str, Any]:
    return {
        "models": models,
        "faces": faces,
        "fps": fps,
        "videos": len(entries) + len(rejects),
        "usable": len(entries),
        "rejected": dict(sorted(Counter(reject.reason for reject in rejects).items())),
        "people": len({entry.person for entry in entries}),
        "held_out_people": sorted({entry.person for entry in entries if entry.held_out}),
        "held_out_clips": sum(entry.held_out for entry in entries),
        "windows": dict(sorted(Counter(entry.windows for entry in entries).items())),
        "captions_cut": sum(entry.text_cut for entry in entries),
        "target_seconds": round(sum(entry.target_seconds[1] - entry.target_seconds[0] for entry in entries), 3),
    }
