"""What crosses an activity's boundary: small whatever is in it, and the same on the other side."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.contracts import MAX_PAYLOAD_BYTES, MAX_SENTENCE_CHARACTERS, STEPS, BatchRequest, Payload, sentence
from activities.failures import step_failed
from adapters.blobs import StorageUnavailable
from models.manifest import SLUG

WORST = "\U0001f600" * 5000
MANY = 10**9
FLOATS = st.floats(0, 1e9)
NAMES: dict[str, st.SearchStrategy[Any]] = {
    # These are made by us, and short; all other texts may be anybody's.
    "pipeline": st.from_regex(SLUG, fullmatch=True),
    "run": st.just("20261201T050344-bbda0c9e"),
    "started": st.just("2026-12-01T05:03:44.365105+00:00"),
    "hub": st.text("abcXYZ019", min_size=1, max_size=45),
    "activity": st.sampled_from(["validate", "transform"]),
    **dict.fromkeys(("outcome", "ended"), st.sampled_from(["promoted", "nothing_to_do", ""])),
    **dict.fromkeys(("oldest", "newest"), st.just("2026-12-01T05:03:44.365105+00:00")),
}
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "str": st.one_of(st.text(max_size=2000), st.just(WORST), st.just("é" * 5000), st.just("\n\"'\\" * 5000)),
    "bool": st.booleans(),
    "int": st.integers(0, MANY),
    "float": FLOATS,
    "tuple[float, ...]": st.lists(FLOATS, min_size=len(STEPS), max_size=len(STEPS)).map(tuple),
}
CONTRACTS = Payload.__subclasses__()


def payloads(kind: type[Payload]) -> st.SearchStrategy[Any]:
    return st.builds(
        kind,
        **{field.name: NAMES.get(field.name, TYPES[str(field.type)]) for field in fields(kind)},  # type: ignore[arg-type]
    )


def test_every_contract_is_tried() -> None:
    assert {"Finish", "Uploads", "Done", "Judged", "Settled", "ItemRef"} <= {kind.__name__ for kind in CONTRACTS}


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_payload_is_small_and_arrives(kind: type[Payload], data: st.DataObject) -> None:
    sent = data.draw(payloads(kind)).to_dict()
    assert len(json.dumps({"result": sent, "seconds": 1234567.891})) <= MAX_PAYLOAD_BYTES
    arrived = json.loads(json.dumps(sent))
    assert kind.from_dict(arrived).to_dict() == {
        name: list(value) if isinstance(value, tuple) else value for name, value in sent.items()
    }


def test_what_is_short_crosses_as_it_is() -> None:
    assert BatchRequest("validate", "shops", "r", 1, 100).to_dict()["pipeline"] == "shops"
    assert sentence("Promoted: AUC 0.6743 — es ist besser.") == "Promoted: AUC 0.6743 — es ist besser."
    assert sentence("a\n\nb") == "a b"


@pytest.mark.parametrize("text", ["x" * 600, "\U0001f600" * 600, "漢" * 600])
def test_what_is_long_says_that_it_goes_on(text: str) -> None:
    assert sentence(text).endswith("…")
    assert sentence(text)[:-1] == text[: len(sentence(text)) - 1]
    assert len(sentence(text)) <= MAX_SENTENCE_CHARACTERS


def test_a_failure_is_small_too() -> None:
    assert len(json.dumps(str(step_failed(StorageUnavailable(WORST, WORST))))) < MAX_PAYLOAD_BYTES / 1.5
