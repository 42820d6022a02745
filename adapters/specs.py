"""The pipeline files: `pipelines/*.yaml`, by name. Reading a directory is light; parsing a spec is not, and is lazy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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
        """The file's text. Raises UnknownPipeline and SpecError."""
        names = self.names()
        if name not in names:
            raise UnknownPipeline(name, names)
        try:
            return (self.directory / f"{name}.yaml").read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            from models.spec import SpecError

            raise SpecError(f"{name}.yaml", 1, "", "is not UTF-8 text") from exc

    def load(self, name: str) -> PipelineSpec:
        """The validated spec. Raises UnknownPipeline and SpecError."""
        return _validated(name, self.text(name))


@lru_cache(maxsize=256)
def _validated(name: str, text: str) -> PipelineSpec:
    """Remembered by its text: a status that is asked for often need not parse the same file each time."""
    from models.expressions import check_expressions
    from models.spec import SpecError, line_of, parse_spec

    source = f"{name}.yaml"
    spec = parse_spec(text, source=source)
    check_expressions(spec, source=source, text=text)
    if spec.name != name:
        raise SpecError(source, line_of(text, "name"), "name", f"is {spec.name!r}; the file's name says {name!r}")
    return spec
