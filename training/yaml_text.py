"""YAML as people mean it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from slotid_core.errors import SlotIDError


def parse_yaml(text: str, where: str) -> Any:
    """Plain data; ``where`` names the text in errors.

    Raises:
        SlotIDError: not YAML, or a key is there twice.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise SlotIDError(f"{where} is not YAML: {' '.join(str(error).split())}.") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-4`` as text for want of a point; here it is a number. A key given twice is an error."""

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
