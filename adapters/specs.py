"""The pipeline files: `pipelines/*.yaml`, by name. Reading a directory is light; parsing a spec is not, and is lazy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import RatchetError

if TYPE_CHECKING:
    from models.spec import PipelineSpec


class UnknownPipeline(RatchetError):
    """There is no pipeline file of that name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no pipeline {name!r}; there is: {', '.join(known) or 'none'}")
        self.name, self.known = name, known


@dataclass(frozen=True, slots=True)
class SpecFiles:
    """Pipeline files in a directory. A pipeline's file is called like the pipeline."""

    directory: Path

    def names(self) -> tuple[str, ...]:
        """All pipelines, sorted."""
        return tuple(sorted(path.stem for path in self.directory.glob("*.yaml")))

    def text(self, name: str) -> str:
        """The file's text. Raises UnknownPipeline."""
        names = self.names()
        if name not in names:
            raise UnknownPipeline(name, names)
        return (self.directory / f"{name}.yaml").read_text(encoding="utf-8")

    def load(self, name: str) -> PipelineSpec:
        """The validated spec. Raises UnknownPipeline and SpecError."""
        from models.partitions import check_label
        from models.spec import SpecError, parse_spec

        spec = parse_spec(self.text(name), source=f"{name}.yaml")
        check_label(spec, source=f"{name}.yaml")
        if spec.name != name:
            raise SpecError(f"{name}.yaml", 1, "name", f"is {spec.name!r}; the file's name says {name!r}")
        return spec
