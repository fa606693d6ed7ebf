"""Plans as plain text. Every table says that it is predicted."""

from __future__ import annotations

from collections.abc import Sequence

from training.planner.decide import UTILISATION, Plan
from training.planner.machine import GIB
from training.planner.memory import READING


def describe(plan: Plan) -> str:
    """One machine in detail."""
    machine, base = plan.machine, plan.base
    needed = plan.choice.need
    trained = ", ".join(f"{name} {count / 1e6:.2f}" for name, count in plan.trained.items())
    processes = "1 process" if plan.processes == 1 else f"{plan.processes} processes"
    sections = [
        "PREDICTED, not measured: what this training needs",
        "\n".join(
            [
                f"Machine   {machine.name}: {machine.device}, {processes}",
                f"Clip      {plan.clip}: {plan.tokens:,} tokens ({plan.shapes})",
                f"Frozen    {_count(base.parameters)} parameters, {base.block_parameters / 1e6:.1f} M a block",
                f"Trained   {sum(plan.trained.values()) / 1e6:.2f} M parameters: {trained}",
            ]
        ),
        _memory_plans(plan),
        _bytes(
            f"{'Memory' if machine.vram is None else 'Memory of a card'}, {plan.memory_plan}",
            {**needed.card, **({f"host: {k}": v for k, v in needed.host.items()} if machine.vram is None else {})},
        ),
    ]
    if machine.vram is not None:
        host = {**needed.host, f"({READING})": needed.loading}
        sections.append(_bytes("Host memory", host, total=needed.host_total))
    sections += [_bytes("Disk", plan.disk), _work(plan), _time(plan)]
    sections += [f"Note: {note}" for note in plan.notes]
    return "\n\n".join(sections)


def compare(plans: Sequence[Plan]) -> str:
    """Several machines, a line each."""
    rows = [("machine", "memory plan", "card GiB", "host GiB", "s a step", "hours"), *map(_row, plans)]
    return "PREDICTED, not measured: on common machines\n\n" + _aligned(rows)


def markdown(plans: Sequence[Plan]) -> str:
    """The same as a Markdown table."""
    header = ("machine", "card", "memory plan", "card GiB", "host GiB", "seconds a step", "hours")
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    for plan in plans:
        name, *rest = _row(plan)
        lines.append(" | ".join([name, plan.machine.device, *rest]))
    return "\n".join(f"| {line} |" for line in lines)


def components(plan: Plan) -> str:
    """A card's memory by component as a Markdown table."""
    lines = ["| component | GiB |", "| --- | --- |"]
    lines += [f"| {name} | {size / GIB:.2f} |" for name, size in plan.choice.need.card.items() if size]
    return "\n".join([*lines, f"| **together** | **{plan.choice.need.card_total / GIB:.2f}** |"])


def work_table(plan: Plan) -> str:
    """FLOPs of one clip as a Markdown table."""
    rows = _work_rows(plan)
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ("---",) * len(rows[0]), *rows[1:]])


def _row(plan: Plan) -> tuple[str, ...]:
    needed, there = plan.choice.need, plan.machine
    on_cpu = there.vram is None
    card = needed.together if on_cpu else needed.card_total
    of = there.ram if on_cpu else there.vram
    return (
        there.name,
        plan.memory_plan if plan.fits else "none fits",
        f"{card / GIB:.1f}" + ("" if of is None else f" of {of / GIB:.1f}"),
        "" if on_cpu else f"{needed.host_total / GIB:.1f}",
        "-" if plan.seconds_a_step is None else f"{plan.seconds_a_step:.1f}",
        "-" if plan.hours is None else f"{plan.hours:,.0f}",
    )


def _memory_plans(plan: Plan) -> str:
    rows = []
    for choice in plan.choices:
        on_cpu = plan.machine.vram is None
        size = choice.need.together if on_cpu else choice.need.card_total
        rows.append(
            (
                f"  {choice.plan}",
                f"{size / GIB:.1f} GiB",
                " ".join(problem.brief for problem in choice.problems) or "fits: taken",
            )
        )
    return "Memory plans, fastest first\n" + _aligned(rows)


def _bytes(title: str, parts: dict[str, int], total: int | None = None) -> str:
    rows = [(f"  {name}", _size(size)) for name, size in parts.items() if size]
    rows.append(("  at most" if total else "  together", _size(total or sum(parts.values()))))
    return f"{title}\n{_aligned(rows)}"


def _size(size: int) -> str:
    return f"{size / GIB:8.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:8.2f} MiB"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e8 else f"{number / 1e6:.1f} M"


def _work_rows(plan: Plan) -> list[tuple[str, ...]]:
    rows = [("TFLOP a clip", "forward", "recompute", "backward", "together")]
    sums = [0.0] * 4
    for kind, part in plan.work.items():
        figures = (part.forward, part.recompute, part.backward, part.total)
        sums = [a + b for a, b in zip(sums, figures, strict=True)]
        rows.append((kind, *(_tera(x) for x in figures)))
    return [*rows, ("together", *(_tera(x) for x in sums))]


def _tera(flops: float) -> str:
    return f"{flops / 1e12:,.1f}" if flops >= 1e11 else f"{flops / 1e12:.2g}"


def _work(plan: Plan) -> str:
    first, *rest = _work_rows(plan)
    return "Work\n" + _aligned([(f"  {row[0]}", *row[1:]) for row in (first, *rest)])


def _time(plan: Plan) -> str:
    if plan.seconds_a_step is None:
        return "Time: not predicted"
    assert plan.machine.peak_flops is not None and plan.hours is not None
    return (
        f"Time: {plan.seconds_a_step:.1f} s an update, {plan.hours:,.0f} hours for the run with its validations,\n"
        f"assuming {UTILISATION:.0%} of {plan.machine.peak_flops / 1e12:.0f} TFLOP/s (dense bfloat16)"
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
