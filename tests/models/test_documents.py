"""Documents that another version of the code has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from models.documents import read_document

type Colour = Literal["red", "blue"]


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    size: float | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    number: int
    parts: tuple[Part, ...] = ()
    first: Part | None = None
    colour: Colour | None = None
    cells: Mapping[str, tuple[float | str | None, ...]] = field(default_factory=dict)
    done: bool = False
    anything: Any = None


GIVEN = {
    "number": 1,
    "parts": [{"name": "a", "size": 2}, {"name": "b"}],
    "first": {"name": "c", "size": 0.5},
    "colour": "red",
    "cells": {"x": [1, "one", None]},
    "done": True,
    "anything": [1, {}],
}
READ = Whole(1, (Part("a", 2), Part("b")), Part("c", 0.5), "red", {"x": (1, "one", None)}, done=True, anything=[1, {}])


def test_what_was_written_is_read() -> None:
    assert read_document(Whole, GIVEN) == READ


def test_fields_of_newer_code_are_passed_over_at_any_depth() -> None:
    newer = {**GIVEN, "since": "tomorrow", "first": {"name": "c", "size": 0.5, "weight": 3}}
    assert read_document(Whole, newer) == READ


def test_fields_that_older_code_did_not_know_have_their_defaults() -> None:
    assert read_document(Whole, {"number": 1}) == Whole(1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"number": "1"}, "Whole.number is '1', no int"),
        ({"number": True}, "Whole.number is True, no int"),
        ({"number": 1.0}, "Whole.number is 1.0, no int"),
        ({"done": 1}, "Whole.done is 1, no bool"),
        ({"colour": "green"}, "Whole.colour is 'green'"),
        ({"parts": {"name": "a"}}, "Whole.parts is"),
        ({"parts": [{"size": 2}]}, r"Whole.parts\[\].name is missing"),
        ({"parts": [{"name": "a", "size": "2"}]}, r"Whole.parts\[\].size is '2'"),
        ({"first": "c"}, "Whole.first is 'c'"),
        ({"cells": [1]}, "Whole.cells is"),
        ({"cells": {"x": [True]}}, r"Whole.cells.x\[\] is True"),
    ],
)
def test_a_known_field_of_another_type_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read_document(Whole, {**GIVEN, **changed})


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(TypeError, match="Whole is no object"):
        read_document(Whole, [1])
    with pytest.raises(TypeError, match=r"Whole\.number is missing"):
        read_document(Whole, {})
