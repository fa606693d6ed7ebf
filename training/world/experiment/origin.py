"""What a result was made from. Results are compared with each other only where that is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slotid_core.errors import SlotIDError
from training.world.models.files import weights_id

_NOT_LEARNED_FROM = ("run", "log", "memory", "checkpoint", "validation")
_OF_THE_MACHINE = {"data": ("cache", "source", "workers"), "model": ("transformer", "vae", "text_encoder")}
_OF_THE_VARIANT = ("model", "contrast")


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
        wanted: what it has to say of itself: ``models``, ``people`` and, of a variant, ``settings``.

    Raises:
        SlotIDError: it says something else.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    differ = [said for name, value in wanted.items() for said in _differences(name, result.get(name), value)]
    if differ:
        raise SlotIDError(
            f"{path} was made from something else than what is here: {'; '.join(differ)}. Give this experiment a "
            "folder of its own (--results), or make it from the same."
        )


def check_alike(found: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
    """Variants differ in what makes them variants, and in nothing else that they learned from.

    Args:
        found: results by variant and seed.

    Raises:
        SlotIDError: they differ; the first pair is named.
    """
    seen = [(f"{name}-{seed}", _common(result["settings"])) for (name, seed), result in found.items()]
    for name, settings in seen[1:]:
        differ = _differences("", settings, seen[0][1])
        if differ:
            raise SlotIDError(
                f"{name} and {seen[0][0]} can't be compared: {'; '.join(differ)}. Keep such results in folders of "
                "their own."
            )


def _common(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {part: fields for part, fields in settings.items() if part not in _OF_THE_VARIANT}


def _differences(name: str, there: Any, here: Any) -> list[str]:
    """In words, field by field."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        return [
            said
            for key in sorted({*there, *here})
            for said in _differences(f"{name}.{key}".lstrip("."), there.get(key), here.get(key))
        ]
    return [] if there == here else [f"{name} is {there!r} there and {here!r} here"]
