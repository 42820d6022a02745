"""Pipeline files by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.specs import SpecFiles, UnknownPipeline
from models.spec import SpecError
from tests.activities.world import SPEC


@pytest.fixture
def specs(tmp_path: Path) -> SpecFiles:
    (tmp_path / "shops.yaml").write_text(SPEC)
    (tmp_path / "schema.json").write_text("{}")
    return SpecFiles(tmp_path)


def test_a_pipelines_file_is_called_like_the_pipeline(specs: SpecFiles) -> None:
    assert specs.names() == ("shops",)
    assert specs.load("shops").name == "shops"


def test_an_unknown_pipeline_is_named_with_those_that_are_there(specs: SpecFiles) -> None:
    with pytest.raises(UnknownPipeline, match="there is no pipeline 'shop'; there is: shops"):
        specs.load("shop")


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (SPEC.replace("name: shops", "name: shop").encode(), r"^shops\.yaml:2: name: is 'shop'"),
        (SPEC.replace("{column: sold,", "{expression: solt > 1,").encode(), r"^shops\.yaml:8: label\.expression"),
        (b"name: caf\xe9", r"^shops\.yaml:1: is not UTF-8"),
    ],
)
def test_a_mistake_names_the_file(specs: SpecFiles, content: bytes, mistake: str) -> None:
    (specs.directory / "shops.yaml").write_bytes(content)
    with pytest.raises(SpecError, match=mistake):
        specs.load("shops")
