"""YAML as people mean it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from slotid_core.errors import SlotIDError


def read_yaml(path: Path) -> Any:
    """Plain data from a file.

    Raises:
        SlotIDError: as :func:`parse_yaml`; or the file can't be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise SlotIDError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise SlotIDError(f"{path} is not UTF-8 ({error}). Save it as UTF-8.") from error
    return parse_yaml(text, path.name)


def parse_yaml(text: str, where: str) -> Any:
    """Plain data; ``where`` names the text in errors.

    Raises:
        SlotIDError: not YAML, a key is there twice, or a value is not what it looks like or is said to be.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise SlotIDError(f"{where} is not YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise SlotIDError(f"{where} can not be read: too many lists or mappings lie in one another.") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-4`` as text for want of a point; here it is a number. A key given twice is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError) as error:
            # A day such as 2024-13-45, or !!int abc; PyYAML lets through whatever its parsing stumbled over.
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is no {kind}; put text into quotes", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"{', '.join(sorted(twice))} is there twice")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).append(
        ("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"))
    )
