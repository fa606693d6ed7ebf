"""Settings from a YAML file and the command line; every field can be overridden there.

Errors name the field, what was got and, for a slip of the pen, the nearest that is known.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from slotid_core.errors import SlotIDError
from training.settings import Settings, merge
from training.yaml_text import parse_yaml, read_yaml


def load(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a YAML file; relative paths in it are relative to where the program was started.

    Args:
        overrides: ``section.field=value`` each, the value in YAML, as in ``optim.lr=2e-4``.

    Raises:
        SlotIDError: not there, not YAML, an unknown key (the nearest known one is named), or a value that does not fit.
    """
    if not path.is_file():
        shipped = sorted(p.name for p in (Path(__file__).parent / "configs").glob("*.yaml"))
        raise SlotIDError(f"There is no settings file {path}. Shipped in training/configs: {', '.join(shipped)}.")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise SlotIDError(f"{path.name} holds {type(data).__name__}, expected sections such as run, model and data.")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise SlotIDError(f"Got the override {override!r}, expected section.field=value, such as optim.lr=2e-4.")
        for name in reversed(key.split(".")):
            value = {name: parse_yaml(value, override) if isinstance(value, str) else value}
        data = merge(data, value)
    return from_dict(data, path.name)


def from_dict(data: dict[str, Any], where: str) -> Settings:
    """Settings from plain data; ``where`` names the file in errors.

    Raises:
        SlotIDError: every problem in one message.
    """
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        problems = [_say(problem) for problem in error.errors()]
        raise SlotIDError(f"{where}: " + "; ".join(problem.rstrip(".") for problem in problems) + ".") from error


def _say(problem: Any) -> str:
    where, message = ".".join(str(part) for part in problem["loc"]), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = _fields(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.0)
        return f"{where} is not known; the nearest that is: {near[0]}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    got = "" if isinstance(problem["input"], (dict, BaseModel)) else f" (got {problem['input']!r})"
    return f"{where}: {message}{got}".removeprefix(": ")


def _fields(loc: tuple[Any, ...]) -> list[str]:
    part: Any = Settings
    for name in loc:
        part = part.model_fields[name].annotation
    return list(part.model_fields)
