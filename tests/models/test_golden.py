"""Golden rows: recorded when a graph is made, asked before it is promoted or served."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from models.export import export
from models.golden import COUNT, GoldenMismatch, golden_rows, prove
from models.manifest import Lineage, Manifest
from serving.session import Session
from serving.session import prove as prove_in_serving
from tests.models.boosters import trained


@pytest.fixture(scope="module")
def model() -> bytes:
    made = trained()
    return export(made.model.booster_text, made.graph, made.signature, kind="exact")


def _manifest(model: bytes, **changes: Any) -> Manifest:
    made = trained()
    manifest = Manifest(
        pipeline="shops",
        version=3,
        run="r",
        created="",
        model_path="",
        model_sha256=hashlib.sha256(model).hexdigest(),
        model_bytes=len(model),
        signature=made.signature,
        golden=golden_rows(model, made.feeds()),
        lineage=Lineage("", "", 0.0, ()),
    )
    return replace(manifest, **changes)


def test_they_are_spread_over_the_rows_and_one_is_all_missing(model: bytes) -> None:
    golden = golden_rows(model, trained().feeds())
    assert len(golden.probabilities) == COUNT + 1
    assert [values[-1] for values in golden.inputs.values()] == [None, None, None]


def test_few_rows_give_few(model: bytes) -> None:
    few = {name: values[:2] for name, values in trained().feeds().items()}
    assert len(golden_rows(model, few).probabilities) == 3


def test_the_graph_proves_itself_also_after_its_manifest_was_stored(model: bytes) -> None:
    stored = Manifest.from_dict(_manifest(model).to_dict())
    prove(model, stored)
    prove_in_serving(Session(model), stored.signature, stored.golden)


def test_other_bytes_do_not(model: bytes) -> None:
    with pytest.raises(GoldenMismatch, match="version 3 does not prove itself: the stored bytes"):
        prove(model + b"\0", _manifest(model))


def test_other_answers_do_not(model: bytes) -> None:
    golden = _manifest(model).golden
    nudged = (tuple(p + 1e-16 if p > 0.6 else p + 1e-15 for p in golden.probabilities[0]), *golden.probabilities[1:])
    with pytest.raises(GoldenMismatch, match="answers its golden rows differently"):
        prove(model, _manifest(model, golden=replace(golden, probabilities=nudged)))
