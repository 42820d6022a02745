"""Where in a pipeline's file a field stands, so that a mistake can name its line."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from models.errors import RatchetError


class SpecError(RatchetError):
    """A pipeline file has a mistake. `line` counts from 1; `field` is dotted (`columns.distance.type`)."""

    def __init__(self, source: str, line: int, field: str, problem: str) -> None:
        where = f"{source}:{line}" + (f": {field}" if field else "")
        super().__init__(f"{where}: {problem}")
        self.source, self.line, self.field, self.problem = source, line, field, problem


class Loader(yaml.SafeLoader):
    """A safe loader for which a date is a text like any other, and so are yes, no, on and off, as in YAML 1.2."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), [*"tTfF"])


def refuse_duplicates(node: yaml.Node, source: str, path: tuple[str, ...] = ()) -> None:
    """Raises SpecError for a key that a mapping has twice, of which YAML would keep the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise SpecError(source, key.start_mark.line + 1, ".".join((*path, name)), "given twice")
            seen.add(name)
            refuse_duplicates(value, source, (*path, name))


def line_at(root: yaml.Node, location: Sequence[int | str]) -> int:
    """The line of the deepest node on the way to `location`, from 1."""
    node, line = root, root.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if str(key.value) == str(part)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and str(part).isdecimal() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            return line
    return line
