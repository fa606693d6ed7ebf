"""What ``prepare.py`` leaves and training reads: shards of tensors, and a manifest that says what is in them.

Shape letters: C latent channels (16), T H W latent frames, height, width, L text tokens, E text-token width.

Targets and text are stored in bfloat16, references and portraits in float32: they are small, and the model reads in
ComfyUI what it was trained on to the last digit that matters.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from slotid_core.errors import SlotIDError
from training.atomic import atomic
from training.data.hashes import FileHashes
from training.data.origin import (
    TEXT_TOKENS,
    check_models,
    check_settings,
    dataset_folder,
    model_hashes,
    shaping_settings,
    split_settings,
)
from training.data.shard_file import (
    Shard,
    check_content,
    damaged_shard,
    shard_key,
    tensor_hash,
    tensor_name,
)
from training.data.sources import Reject, printable
from training.settings import Settings

VERSION = 1
SHARDS, MANIFEST, SETTINGS = "shards", "manifest.json", "settings.json"
EMPTY_TEXT = "empty_text"
"""Name, in every shard, of the text tokens of no caption at all."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One usable clip."""

    id: str
    person: str
    caption: str
    video: str
    """Relative to the dataset's folder, with slashes. Leads to the file, so bytes that are no text stay in it."""
    video_sha256: str
    held_out: bool
    """Its person is for validation only."""
    shard: str
    """File name."""
    index: int
    """Place in the shard."""
    target_shape: tuple[int, int, int]
    """T, H, W in latent cells."""
    reference_shape: tuple[int, int, int]
    portrait_shape: tuple[int, int, int]
    variants: int
    """Versions of the reference; 0 is the one that is left as it is."""
    text_tokens: int
    """L, not padded."""
    text_cut: bool
    """The caption was longer than the tokens there are."""
    target_seconds: tuple[float, float]
    """Where the window begins and ends in the video."""
    reference_seconds: tuple[float, float]
    windows: str
    """How the two lie: ``disjoint``, ``overlapping`` or ``same``."""
    portrait_second: float
    coverage: dict[str, Any] | None
    """What the reference shows of the person, see :class:`slotid_core.reference.coverage.Coverage`; ``None`` where no
    face was searched."""
    sha256: dict[str, str]
    """Of each tensor's bytes."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Tensors of one clip on the CPU; latents are normalised."""

    entry: Entry
    target_CTHW: Tensor
    """bfloat16."""
    reference_CTHW: Tensor
    """float32, of the version that was asked for."""
    portrait_CTHW: Tensor
    """float32, T = 1."""
    text_LE: Tensor
    """bfloat16, not padded."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a finished cache but the tensors."""

    settings: dict[str, Any]
    """The settings that shaped it, see :mod:`training.data.origin`."""
    facts: dict[str, Any]
    """Models, counts and durations, for people and logs."""
    shards: dict[str, dict[str, Any]]
    """By file name: its key and its size in bytes."""
    entries: tuple[Entry, ...]
    """Sorted by id."""
    rejects: tuple[Reject, ...]
    """Sorted by id."""

    def to_json(self) -> str:
        """The file's text, the same for the same content."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["entries"] = [asdict(entry) for entry in self.entries]
        content["rejects"] = [asdict(reject) for reject in self.rejects]
        return json.dumps({"version": VERSION, **content}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class Cache:
    """A finished cache; made by :func:`open_cache`.

    Attributes:
        folder: where it is.
        entries: the usable clips, sorted by id.
        rejects: the clips that were left out, sorted by id.
        key: SHA-256 of the manifest: of all that shaped the cache, and of every tensor's hash.
        facts: models, counts and durations.
    """

    def __init__(self, folder: Path, manifest: Manifest, key: str):
        self.folder, self.key = folder, key
        self.entries, self.rejects, self.facts = manifest.entries, manifest.rejects, manifest.facts
        self._shards: dict[str, Shard] = {}

    @cached_property
    def empty_text_LE(self) -> Tensor:
        """The text tokens of an empty prompt, bfloat16, not padded: for text that is dropped, and for guidance.

        Raises:
            SlotIDError: a shard can't be read or is not what was written.
        """
        shard = self.entries[0].shard
        check_content(self.folder / SHARDS / shard)  # no entry has this tensor's hash
        return self._shard(shard).read([EMPTY_TEXT])[0]

    def load(self, entry: Entry, reference: Entry | None = None, variant: int = 0) -> Sample:
        """Read one clip's tensors.

        Args:
            entry: whose target and text.
            reference: whose reference and portrait; the clip's own where left out; another person's for the gap.
            variant: version of the reference, below its ``variants``.

        Raises:
            SlotIDError: a shard can't be read or is not what was written.
        """
        reference = entry if reference is None else reference
        assert 0 <= variant < reference.variants, f"{reference.id} has {reference.variants} versions, not {variant}"
        target_CTHW, text_LE = self._read(entry, ("target", "text"))
        reference_CTHW, portrait_CTHW = self._read(reference, (f"reference.{variant}", "portrait"))
        return Sample(
            entry=entry,
            target_CTHW=target_CTHW,
            reference_CTHW=reference_CTHW,
            portrait_CTHW=portrait_CTHW,
            text_LE=text_LE,
        )

    def reference(self, entry: Entry, variant: int = 0) -> Tensor:
        """The latents of a clip's own reference alone, ``[C, T, H, W]``; arguments and errors as in :meth:`load`."""
        return self._read(entry, (f"reference.{variant}",))[0]

    def _read(self, entry: Entry, names: tuple[str, ...]) -> list[Tensor]:
        tensors = self._shard(entry.shard).read([tensor_name(entry.index, name) for name in names])
        for name, tensor in zip(names, tensors, strict=True):
            if tensor_hash(tensor) != entry.sha256[name]:
                path = self.folder / SHARDS / entry.shard
                raise damaged_shard(path, f"{name} of {entry.id} is not what was written")
        return tensors

    def _shard(self, file: str) -> Shard:
        return self._shards.setdefault(file, Shard(self.folder / SHARDS / file))


def open_cache(settings: Settings) -> Cache:
    """The finished cache of these settings.

    Tensors are checked when they are loaded. Videos and models are compared with those that the cache was made from
    where they are at hand; training needs neither the dataset nor the text encoder.

    Raises:
        SlotIDError: there is none, it is not finished, it was made with other settings (each is named), from other
            models or videos, or a shard is missing or damaged.
    """
    folder = settings.data.cache
    manifest, text = read_manifest(folder)
    shaping, split = shaping_settings(settings), split_settings(settings)
    stored = manifest.settings
    whole = not any(e.text_cut or e.text_tokens > shaping[TEXT_TOKENS] for e in manifest.entries)
    others = {*split, *([TEXT_TOKENS] if whole else [])}
    check_settings(folder, *({n: v for n, v in some.items() if n not in others} for some in (stored, shaping)))
    again = "Set them back, or run prepare.py again: shards are kept."
    check_settings(folder, {name: stored.get(name) for name in split}, split, fix=again)
    hashes = FileHashes(folder)
    check_models(folder, manifest.facts["models"], model_hashes(settings, hashes, must_be_there=False))
    for name, shard in manifest.shards.items():
        path = folder / SHARDS / name
        if shard_key(path) != shard["key"] or path.stat().st_size != shard["bytes"]:
            raise damaged_shard(path, "it is another than the manifest names")
    _check_videos(settings, manifest, hashes)
    hashes.save()
    return Cache(folder, manifest, _key(text))


def cache_key(folder: Path) -> str:
    """:attr:`Cache.key` of the finished cache that is there, whatever settings it is of.

    Raises:
        SlotIDError: as :func:`read_manifest`.
    """
    return _key(read_manifest(folder)[1])


def _key(manifest: str) -> str:
    return hashlib.sha256(manifest.encode()).hexdigest()


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest and its text.

    Raises:
        SlotIDError: there is none, or it is damaged or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        begun = "is not finished" if (folder / SETTINGS).is_file() else "is not there"
        raise SlotIDError(f"The cache {folder} {begun}. Make it with: python training/prepare.py CONFIG")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        version = content.pop("version")
        manifest = _manifest(content) if version == VERSION else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SlotIDError(
            f"{path} is damaged ({error!r}). Delete it and run prepare.py again: shards are kept."
        ) from error
    if manifest is None:
        raise SlotIDError(
            f"{path} has version {version}, expected {VERSION}. Give another data.cache and prepare anew."
        )
    return manifest, text


def _manifest(content: dict[str, Any]) -> Manifest:
    """Raises a LookupError, TypeError, ValueError or AttributeError where the content is not that of a manifest."""
    entries = tuple(_entry(entry) for entry in content.pop("entries"))
    rejects = tuple(Reject(**reject) for reject in content.pop("rejects"))
    manifest = Manifest(entries=entries, rejects=rejects, **content)
    if not entries:
        raise ValueError("it names no clips")
    for part in (manifest.settings, manifest.facts["models"], *(entry.sha256 for entry in entries)):
        part.keys()
    for shard in manifest.shards.values():
        _ = shard["key"], shard["bytes"]
    if astray := {entry.shard for entry in entries} - manifest.shards.keys():
        raise ValueError(f"it has no shard {min(astray)}")
    return manifest


def _entry(data: dict[str, Any]) -> Entry:
    return Entry(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


def _check_videos(settings: Settings, manifest: Manifest, hashes: FileHashes) -> None:
    folder = dataset_folder(settings)
    if not folder.is_dir():
        return
    gone = [entry.video for entry in manifest.entries if not (folder / entry.video).is_file()]
    if gone:
        raise _changed(settings, gone, "not there any more")
    other = [entry.video for entry in manifest.entries if hashes.of(folder / entry.video) != entry.video_sha256]
    if other:
        raise _changed(settings, other, "changed")


def _changed(settings: Settings, videos: list[str], what: str) -> SlotIDError:
    return SlotIDError(
        f"The dataset is another than the cache {settings.data.cache} was made from: {len(videos)} videos are {what}, "
        f"the first is {printable(videos[0])}. Run prepare.py again, which does anew what changed; or put the videos "
        "back."
    )


def write_text(path: Path, text: str) -> None:
    """Whole or not at all. Where a file's name holds bytes that are no text, JSON's own escapes are written for them.

    Raises:
        SlotIDError: the folder can't be written.
    """
    how = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    with atomic(path) as temporary, temporary.open("w", **how) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


Say = Callable[[str], None]
"""Where lines for people go."""
