"""Renew the predicted tables of docs/cost.md.

python -m training.planner.cost_page docs/cost.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from slotid_core.errors import SlotIDError
from training.planner.decide import ingredients, predict
from training.planner.machine import COMMON
from training.planner.report import components, markdown, work_table
from training.settings_file import load

CONFIGS = Path(__file__).parents[1] / "configs"
MODELS = {"Wan 2.1 T2V-14B": "wan2.1_14b.yaml", "Wan 2.1 T2V-1.3B": "wan2.1_1.3b.yaml"}
_BEGIN, _END = "<!-- predicted: begin -->", "<!-- predicted: end -->"


def tables() -> str:
    """Both models on the four machines, with what they hold and compute."""
    parts = []
    for title, config in MODELS.items():
        found = ingredients(load(CONFIGS / config))
        plans = {name: predict(found, machine, machine.cards) for name, machine in COMMON.items()}
        first = plans["1x24"]
        trained = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in first.trained.items())
        parts += [
            f"### {title} (`training/configs/{config}`), predicted",
            f"Frozen {first.base.parameters / 1e9:.2f} B parameters, {first.base.block_parameters / 1e6:.1f} M a "
            f"block. Trained {sum(first.trained.values()) / 1e6:.2f} M: {trained}. {first.clip}: "
            f"{first.tokens:,} tokens; {found.settings.optim.steps:,} updates of {found.settings.optim.batch} clips.",
            markdown(list(plans.values())),
            f"Predicted memory of a card, {first.machine.name}, `{first.memory_plan}`:",
            components(first),
            f"Predicted memory of a card, {plans['1x80'].machine.name}, `{plans['1x80'].memory_plan}`:",
            components(plans["1x80"]),
            f"Work of one clip, `{first.memory_plan}`:",
            work_table(first),
        ]
    return "\n\n".join(parts)


def renew(page: str) -> str:
    """The page with new tables between its two marks.

    Raises:
        SlotIDError: the marks are not there.
    """
    if page.count(_BEGIN) != 1 or page.count(_END) != 1 or page.index(_BEGIN) > page.index(_END):
        raise SlotIDError(f"The page lacks the marks {_BEGIN} and {_END}, once each and in that order.")
    pattern = re.escape(_BEGIN) + ".*" + re.escape(_END)
    return re.sub(pattern, lambda match: f"{_BEGIN}\n\n{tables()}\n\n{_END}", page, flags=re.DOTALL)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(argv[0])
    try:
        path.write_text(renew(path.read_text(encoding="utf-8")), encoding="utf-8")
    except (OSError, SlotIDError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
