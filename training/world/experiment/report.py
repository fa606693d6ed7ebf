"""The table of docs/results/world: every figure from the JSON files that are there, with intervals over people.

Letters: N people, I traits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.atomic import atomic
from training.world.experiment.intervals import ahead_draws, bounds_of, mean_draws, over_seeds, r2_draws
from training.world.experiment.origin import check, check_alike
from training.world.experiment.plots import write_plots
from training.world.experiment.results import BOUNDS, world_suffix
from training.world.experiment.sheet import SIDE_BY_SIDE
from training.world.experiment.variants import VARIANTS
from training.world.identity import TRAITS
from training.world.models.probe import PARTS
from training.world.scenario import SLOTS

PAGE = "README.md"


def write_report(results: Path) -> None:
    """``README.md`` and its pictures beside the results.

    Raises:
        SlotIDError: some can't be compared, see :mod:`.origin`.
    """
    lines = [
        "# Slot-ID World: results",
        "",
        f"Figures of people who do not exist, on a small Wan trained on them ({_about(results)}). They say",
        "what the method does there, and nothing of Wan 14B. Made by `python training/reproduce.py` from the JSON",
        "files beside this page; brackets are 95 % intervals over people (bootstrap).",
    ]
    worlds = {path: json.loads(path.read_text(encoding="utf-8")) for path in results.glob(f"{BOUNDS}*.json")}
    for path, bounds in sorted(worlds.items(), key=lambda world: world[1]["identity_seed"]):
        check(path, traits=list(TRAITS))  # figures are told by their place among them
        lines += ["", *_section(results, bounds)]
    with atomic(results / PAGE) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _about(results: Path) -> str:
    """The page about the world, as a link where the results lie in the same folder as this project."""
    project = Path(__file__).resolve().parents[3]
    if not results.resolve().is_relative_to(project):
        return "docs/world.md"
    return f"[world.md]({Path(os.path.relpath(project / 'docs/world.md', results.resolve())).as_posix()})"


def _section(results: Path, bounds: dict[str, Any]) -> list[str]:
    world, people = bounds["identity_seed"], bounds["people"]
    true_NI = np.array(bounds["true"])
    found = {}
    for path in sorted(results.glob("[!.]*-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "variant" in result and result["identity_seed"] == world:
            check(path, people=people, **{name: bounds[name] for name in ("models", "traits", "sampling")})
            found[result["variant"], result["seed"]] = result
    check_alike(found)
    picture = results / f"figures{world_suffix(world)}.png"
    write_plots(picture, bounds, found)
    shown = results / f"{SIDE_BY_SIDE}{world_suffix(world)}.png"
    rows = [
        _row("real other clip (ceiling)", "", bounds["real"], true_NI),
        _row("no identity", "", bounds["none"], true_NI),
    ]
    for variant in VARIANTS:
        for (name, seed), result in found.items():
            if name == variant:
                label = f"{VARIANTS[name].title}, seed {seed}"
                rows.append(_row(label, f"{result['trained_steps']:,}", result["videos"], true_NI))
                if "crossed" in result:
                    rows += _crossed(result, true_NI)
    floor = np.array(bounds["stranger_face"])
    head = ["", "updates", "face", *(f"R² {part}" for part in PARTS), "follows the caption", "jitter"]
    return [
        f"## {people} held-out people, world {world}",
        "",
        _how_sampled(bounds["sampling"]),
        "",
        *_headline(found, true_NI),
        f"![Faces, traits and gaps of all variants, figures below]({picture.name})",
        "",
        *([f"![People side by side]({shown.name})", "", f"In motion: [video]({shown.stem}.mp4)", ""] * shown.is_file()),
        f"Likeness of a real clip of *another* person: {_interval(floor)} (the floor of *face*).",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *rows,
        *_paired(found, true_NI),
        *_what_the_clip_adds(found, true_NI),
        *_whose_traits(found, true_NI),
        *_routing(found),
        *_by_trait(bounds, found, true_NI),
    ]


def _how_sampled(sampling: dict[str, float]) -> str:
    return (
        f"Videos: {sampling['steps']} steps, shift {sampling['shift']:g}, guided by the text with "
        f"{sampling['guidance']:g} and by the identity with {sampling['identity_guidance']:g}."
    )


def _headline(found: dict, true_NI: np.ndarray) -> list[str]:
    """Whether the clip adds anything to the portrait: what this is all about, so it stands first."""
    lines = []
    for (name, seed), ours in found.items():
        alone = found.get(("portrait_only", seed))
        if name != "slotid" or alone is None:
            continue
        ours_NI, alone_NI = (np.array(result["videos"]["traits"]) for result in (ours, alone))
        added = []
        for trait in (*PARTS["side"], *PARTS["dynamics"]):
            value, low, _ = bounds_of(*r2_draws(ours_NI, true_NI, (trait,)))
            ahead, least, _ = bounds_of(*ahead_draws(ours_NI, alone_NI, true_NI, (trait,)))
            if low > 0 and least > 0:
                added.append(f"`{trait}` (R² {value:.2f}, the portrait alone {value - ahead:.2f})")
        said = f"the clip adds {', '.join(added)}" if added else "the clip adds nothing to the portrait"
        lines += [f"**Seed {seed}: {said}**; of side and dynamics, where both intervals are above 0.", ""]
    return lines


def _row(label: str, steps: str, videos: dict[str, Any], true_NI: np.ndarray) -> str:
    read_NI = np.array(videos["traits"])
    parts = [_r2_interval(read_NI, true_NI, names) for names in PARTS.values()]
    follows = 100 * np.array([[slot[name] for name in SLOTS] for slot in videos["follows"]]).mean(1)
    face = _interval(np.array(videos["face"])) if "face" in videos else ""
    cells = [label, steps, face, *parts, f"{follows.mean():.1f} %"]
    return "| " + " | ".join([*cells, f"{np.mean(videos['jitter']):.4f}"]) + " |"


def _crossed(result: dict[str, Any], true_NI: np.ndarray) -> list[str]:
    """Portrait of the next person, clip of this one: whose traits come out."""
    videos = {figure: values for figure, values in result["crossed"].items() if figure != "face"}  # which of two?
    rows = []
    for whose, truth_NI in (("the clip's person", true_NI), ("the portrait's person", np.roll(true_NI, -1, 0))):
        label = f"crossed, seed {result['seed']}, against {whose}"
        rows.append(_row(label, f"{result['trained_steps']:,}", videos, truth_NI))
    return rows


def _r2_interval(read_NI: np.ndarray, true_NI: np.ndarray, names: tuple[str, ...]) -> str:
    return _said(*r2_draws(read_NI, true_NI, names))


def _r2_ahead(ours_NI: np.ndarray, theirs_NI: np.ndarray, true_NI: np.ndarray, names: tuple[str, ...]) -> str:
    return _said(*ahead_draws(ours_NI, theirs_NI, true_NI, names))


def _interval(values_N: np.ndarray) -> str:
    return _said(*mean_draws(values_N))


def _said(value: float, draws: Sequence[float]) -> str:
    value, low, high = bounds_of(value, draws)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _paired(found: dict, true_NI: np.ndarray) -> list[str]:
    """What a variant loses against Slot-ID of the same seed, on the same people and noise; the mean of its seeds."""
    lines = []
    for name in VARIANTS:
        seeds = [seed for variant, seed in found if variant == name and ("slotid", seed) in found]
        if name == "slotid" or not seeds:
            continue
        pairs = [[found[who, seed]["videos"] for who in ("slotid", name)] for seed in seeds]
        faces = np.mean([np.array(ours["face"]) - np.array(theirs["face"]) for ours, theirs in pairs], 0)
        cells = [_interval(faces)]
        for traits in PARTS.values():
            ahead = [ahead_draws(np.array(a["traits"]), np.array(b["traits"]), true_NI, traits) for a, b in pairs]
            cells.append(_said(*over_seeds(ahead)))
        label = f"{VARIANTS[name].title}, {'seed' if len(seeds) == 1 else 'mean of seeds'} {', '.join(map(str, seeds))}"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    if not lines:
        return []
    head = ["Slot-ID is ahead of", "face", *(f"R² {part}" for part in PARTS)]
    return [
        "",
        "Paired, Slot-ID minus the variant:",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *lines,
    ]


def _what_the_clip_adds(found: dict, true_NI: np.ndarray) -> list[str]:
    """Slot-ID against the portrait alone, trait by trait where a portrait says nothing."""
    seeds = [seed for name, seed in found if name == "slotid" and ("portrait_only", seed) in found]
    if not seeds:
        return []
    pairs = [
        [np.array(found[name, seed]["videos"]["traits"]) for name in ("slotid", "portrait_only")] for seed in seeds
    ]
    rows = []
    for trait in (*PARTS["side"], *PARTS["dynamics"]):
        cells = []
        for ours_NI, alone_NI in pairs:
            cells += [_r2_interval(ours_NI, true_NI, (trait,)), _r2_interval(alone_NI, true_NI, (trait,))]
            cells += [_r2_ahead(ours_NI, alone_NI, true_NI, (trait,))]
        rows.append(f"| `{trait}` | " + " | ".join(cells) + " |")
    head = ["R² by trait"]
    for seed in seeds:
        head += [f"Slot-ID, seed {seed}", "portrait only", "ahead by"]
    return ["", "What the clip adds:", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *rows]


def _whose_traits(found: dict, true_NI: np.ndarray) -> list[str]:
    """With one person's clip and another's portrait: whose traits the video shows, where it shows anybody's."""
    blocks = []
    for (_, seed), result in found.items():
        if "crossed" not in result:
            continue
        read_NI = np.array(result["crossed"]["traits"])
        rows = []
        for trait in TRAITS:
            of_clip, of_portrait = (r2_draws(read_NI, true, (trait,)) for true in (true_NI, np.roll(true_NI, -1, 0)))
            if max(bounds_of(*of_clip)[1], bounds_of(*of_portrait)[1]) > 0:
                rows.append(f"| `{trait}` | {_said(*of_clip)} | {_said(*of_portrait)} |")
        head = f"| crossed, seed {seed}: R² by trait | the clip's person | the portrait's person |"
        said = "One person's clip with another's portrait; traits that show somebody's."
        blocks += ["", said, "", head, "| --- | --- | --- |", *rows]
    return blocks


def _routing(found: dict) -> list[str]:
    rows = []
    for (name, seed), result in found.items():
        # Slots of the portrait alone are as they began: nothing reads them, so nothing taught them.
        if "routing" in result and name != "portrait_only":
            # A single slot has none to overlap with.
            figures = (f"{result['routing'][figure]:.3f}" if figure in result["routing"] else ""
                       for figure in ("entropy", "overlap"))  # fmt: skip
            rows.append(f"| {VARIANTS[name].title}, seed {seed} | {' | '.join(figures)} |")
    if not rows:
        return []
    head = "What slots read: entropy (1 is evenly everywhere) and overlap of two slots (1 is the same places)."
    return ["", head, "", "| | entropy | overlap |", "| --- | --- | --- |", *rows]


def _by_trait(bounds: dict[str, Any], found: dict, true_NI: np.ndarray) -> list[str]:
    columns = {"real": bounds["real"], "no identity": bounds["none"]}
    columns |= {VARIANTS[name].title: result["videos"] for (name, seed), result in found.items() if seed == 0}
    spread_I = true_NI.var(0)
    shares = {
        label: 1 - ((np.array(videos["traits"]) - true_NI) ** 2).mean(0) / spread_I for label, videos in columns.items()
    }
    rows = [
        f"| `{trait}` | " + " | ".join(f"{share_I[i]:.2f}" for share_I in shares.values()) + " |"
        for i, trait in enumerate(TRAITS)
    ]
    head = ["R² by trait (seed 0)", *shares]
    return ["", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *rows]
