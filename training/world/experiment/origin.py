"""What a result was made from. Results are compared with each other only where that is the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from slotid_core.checkpoint import load_weights
from slotid_core.errors import SlotIDError
from training.data.cache import cache_key
from training.settings import Settings
from training.trainer.backbone import backbone_id
from training.world.experiment.variants import VARIANTS
from training.world.models.files import weights_id

_NOT_LEARNED_FROM = ("run", "log", "memory", "checkpoint", "validation")
_OF_THE_MACHINE = {"data": ("cache", "source", "workers"), "model": ("transformer", "vae", "text_encoder")}


def models_ids(models: Mapping[str, Path]) -> dict[str, str]:
    """Of VAE, backbone and probe, see :func:`training.world.models.files.weights_id`."""
    return {name: weights_id(path) for name, path in models.items()}


def learned_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's settings those that shape what it learns, but for the models, which have ids, and places.

    Args:
        settings: as plain data, of ``Settings.to_dict`` or of the facts in a weights file.
    """
    kept = {part: dict(fields) for part, fields in settings.items() if part not in _NOT_LEARNED_FROM}
    for part, names in _OF_THE_MACHINE.items():
        for name in names:
            kept[part].pop(name, None)
    return kept


def check(path: Path, **wanted: Any) -> None:
    """A result that is there is what would be made now.

    Args:
        path: of its JSON.
        wanted: what it has to say of itself: ``models``, ``people``, ``sampling`` and, of a variant, ``settings`` and
            ``cache``.

    Raises:
        SlotIDError: it says something else.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    differ = [said for name, value in wanted.items() for said in _differences(name, result.get(name), value)]
    if differ:
        raise SlotIDError(
            f"{path} was made from something else than what is here: {'; '.join(differ)}. Give this experiment a "
            "folder of its own (--folder, where results are too), or make it from the same."
        )


def check_weights(path: Path, settings: Settings) -> None:
    """Weights that are there have learned what would be learned now.

    Raises:
        SlotIDError: they have not: from other settings, another cache or on another backbone.
    """
    facts = load_weights(path).facts
    wanted = {"cache": cache_key(settings.data.cache), "backbone": backbone_id(settings)}
    differ = _differences("settings", learned_from(facts["settings"]), learned_from(settings.to_dict()))
    differ += [said for name, value in wanted.items() for said in _differences(name, facts.get(name), value)]
    if differ:
        raise SlotIDError(
            f"{path} was trained otherwise: {'; '.join(differ)}. Give this experiment a folder of its own "
            "(--folder), or make it from the same."
        )


def check_alike(found: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
    """Variants differ in what makes them variants, and in nothing else that they learned from: settings and clips.

    Args:
        found: results by variant and seed.

    Raises:
        SlotIDError: they differ; the first pair is named.
    """
    # Each with each: what makes one a variant may differ between two others by mistake.
    for pair in combinations(found, 2):
        own = [change.split("=")[0] for name, _ in pair for change in VARIANTS[name].changes]
        differ = _differences("", *(_without(found[which]["settings"], own) for which in pair))
        if len({name if VARIANTS[name].own_cache else "shared" for name, _ in pair}) == 1:
            differ += _differences("cache", *(found[which].get("cache") for which in pair))
        if differ:
            one, other = (f"{name}-{seed}" for name, seed in pair)
            raise SlotIDError(
                f"{one} and {other} can't be compared: {'; '.join(differ)}. Keep such results in folders of their own."
            )


def _without(settings: Mapping[str, Any], fields: Collection[str], of: str = "") -> dict[str, Any]:
    """Nested settings less these fields; a part that is empty then is left out, as one that was never there."""
    kept = {}
    for name, value in settings.items():
        path = f"{of}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            value = _without(value, fields, path) or None
        if path not in fields and value is not None:
            kept[name] = value
    return kept


def _differences(name: str, there: Any, here: Any) -> list[str]:
    """In words, field by field."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        return [
            said
            for key in sorted({*there, *here})
            for said in _differences(f"{name}.{key}".lstrip("."), there.get(key), here.get(key))
        ]
    return [] if there == here else [f"{name} is {there!r} there and {here!r} here"]
