"""The exported graph answers what the booster answers, on any row."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.adversarial import raw_rows
from models.ensemble import DEFAULT_LEFT, MISSING_IS_NAN, MISSING_TYPE, read_trees
from models.export import ExportError, ExportKind, export
from models.features import feeds
from models.parity import TOLERANCES, check_parity
from models.scoring import open_session
from tests.models.boosters import frame, trained

KINDS: tuple[ExportKind, ...] = ("exact", "portable")


def _model(kind: ExportKind, **made: Any) -> bytes:
    each = trained(**made)
    return export(each.model.booster_text, each.graph, each.signature, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_row_gets_the_boosters_probability(kind: ExportKind, missing: float) -> None:
    made = trained(missing=missing)
    answers = open_session(_model(kind, missing=missing), threads=1).run(["probability"], made.feeds())[0]
    expected = lgb.Booster(model_str=made.model.booster_text).predict(made.matrix())
    assert answers.dtype == np.float64
    assert answers.shape == (600, 2)
    np.testing.assert_allclose(answers[:, 1], expected, rtol=0, atol=TOLERANCES[kind])
    np.testing.assert_allclose(answers.sum(axis=1), 1.0, rtol=0, atol=TOLERANCES[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_rows_on_thresholds_take_the_same_branch(kind: ExportKind, seed: int) -> None:
    made = trained(rows=500, seed=seed)
    report = check_parity(
        _model(kind, rows=500, seed=seed),
        made.model.booster_text,
        made.graph,
        [made.feeds()],
        columns=made.spec.feature_columns,
        kind=kind,
    )
    assert report.passed, report
    assert report.adversarial_rows > 1000


def test_tiny_numbers_are_read_as_lightgbm_reads_them() -> None:
    """LightGBM takes whatever lies within 1e-35 of zero for zero; thresholds at that edge are common."""
    made = trained()
    tiny = np.array([0.0, -0.0, 1e-35, -1e-35, 2e-35, -2e-35, 1e-40, -1e-40])
    rows = len(tiny)
    feed = {"price": np.zeros(rows), "visits": tiny, "town": np.array(["Ghent"] * rows, dtype=object)}
    answers = open_session(_model("exact"), threads=1).run(["probability"], feed)[0][:, 1]
    matrix = open_session(made.graph, threads=1).run(["features"], feed)[0]
    expected = lgb.Booster(model_str=made.model.booster_text).predict(matrix)
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-12)


@given(st.lists(st.integers(0, 599), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_a_row_alone_and_in_a_batch_give_the_same_bits(chosen: list[int]) -> None:
    made = trained()
    session = open_session(_model("exact"), threads=1)
    feed = feeds(made.frame[chosen], made.spec)
    together = session.run(["probability"], feed)[0]
    for position in range(len(chosen)):
        alone = session.run(["probability"], {name: v[position : position + 1] for name, v in feed.items()})[0]
        assert (alone[0] == together[position]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_booster_gives_the_same_bytes(kind: ExportKind) -> None:
    assert _model(kind) == _model(kind)


def test_portable_needs_no_newer_operator() -> None:
    model = onnx.load_model_from_string(_model("portable"))
    assert {opset.domain: opset.version for opset in model.opset_import}["ai.onnx.ml"] <= 4
    assert "TreeEnsemble" not in {node.op_type for node in model.graph.node}


def _booster(parameters: dict[str, Any]) -> str:
    made = trained()
    categorical = parameters.pop("categorical_feature", [])
    labels = made.frame["__label"].to_numpy()
    data = lgb.Dataset(made.matrix(), labels, params={"verbosity": -1}, categorical_feature=categorical)
    settings_ = {"verbosity": -1, "num_leaves": 7, "min_data_in_leaf": 5, "seed": 1, **parameters}
    return str(lgb.train(settings_, data, num_boost_round=3).model_to_string())


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"objective": "regression"}, "objective"),
        ({"objective": "cross_entropy"}, "objective"),
        ({"objective": "binary", "zero_as_missing": True}, "zero_as_missing"),
        ({"objective": "binary", "linear_tree": True}, "linear_tree"),
        (
            {"objective": "binary", "categorical_feature": [2], "min_data_per_group": 1, "cat_smooth": 0, "cat_l2": 0},
            "categorical",
        ),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_onnx_cannot_say_exactly_is_refused(kind: ExportKind, parameters: dict[str, Any], what: str) -> None:
    made = trained()
    with pytest.raises(ExportError, match=what):
        export(_booster(dict(parameters)), made.graph, made.signature, kind=kind)


def test_the_text_says_of_the_trees_what_lightgbm_says() -> None:
    text = trained().model.booster_text
    trees, dump = read_trees(text), lgb.Booster(model_str=text).dump_model()
    assert (trees.objective, trees.per_iteration) == (dump["objective"], dump["num_tree_per_iteration"])
    assert len(trees.splits) == len(dump["tree_info"])
    for number, tree in enumerate(dump["tree_info"]):
        stack = [(0, tree["tree_structure"])]
        while stack:
            child, node = stack.pop()
            if "leaf_value" in node:
                assert trees.leaf[trees.first_leaf[number] + ~child] == node["leaf_value"]
                continue
            split = trees.first_split[number] + child
            assert (trees.feature[split], trees.threshold[split]) == (node["split_feature"], node["threshold"])
            decision = trees.decision[split]
            assert (decision & MISSING_TYPE == MISSING_IS_NAN) == (node["missing_type"] == "NaN")
            assert bool(decision & DEFAULT_LEFT) == node["default_left"]
            stack += [(trees.left[split], node["left_child"]), (trees.right[split], node["right_child"])]


def test_a_text_that_is_no_booster_is_refused() -> None:
    made = trained()
    with pytest.raises(ExportError, match="no trees of version v4"):
        export(made.model.booster_text.replace("version=v4", "version=v9"), made.graph, made.signature, kind="exact")


def test_a_graph_of_other_columns_is_refused() -> None:
    made = trained()
    fewer = type(made.signature)(made.signature.inputs[:-1], made.signature.classes, made.signature.positive)
    with pytest.raises(ExportError, match="the signature says"):
        export(made.model.booster_text, made.graph, fewer, kind="exact")


# Parity has to see a wrong graph.


def test_parity_sees_a_threshold_that_is_off_by_a_hair() -> None:
    made = trained()
    model = onnx.load_model_from_string(_model("exact"))
    (trees,) = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
    (splits,) = [attribute for attribute in trees.attribute if attribute.name == "nodes_splits"]
    values = onnx.numpy_helper.to_array(splits.t).copy()
    features = next(list(a.ints) for a in trees.attribute if a.name == "nodes_featureids")
    (index,) = [i for i, feature in enumerate(features) if feature == 0 and np.isfinite(values[i])][:1]
    values[index] = np.nextafter(np.float32(values[index]), np.float32(-np.inf))
    splits.t.CopyFrom(onnx.numpy_helper.from_array(values, splits.t.name))
    wrong = model.SerializeToString()
    report = check_parity(
        wrong, made.model.booster_text, made.graph, [made.feeds()], columns=made.spec.feature_columns, kind="exact"
    )
    assert not report.passed
    assert report.worst > 1e-6


def test_parity_sees_another_model() -> None:
    made, other = trained(), trained(seed=5)
    model = export(other.model.booster_text, other.graph, other.signature, kind="exact")
    assert not check_parity(
        model, made.model.booster_text, made.graph, [made.feeds()], columns=made.spec.feature_columns, kind="exact"
    ).passed


def test_adversarial_rows_hold_thresholds_missing_and_unknown_values() -> None:
    made = trained()
    rows = raw_rows(made.feeds(), read_trees(made.model.booster_text), made.spec.feature_columns)
    assert np.isnan(rows["price"]).any()
    assert {"", "never seen before", "Ghent"} <= set(rows["town"].tolist())
    assert {len(values) for values in rows.values()} == {len(rows["price"])}


def test_parity_on_no_rows_at_all_says_that_nothing_was_compared() -> None:
    made = trained()
    report = check_parity(
        _model("exact"), made.model.booster_text, made.graph, [], columns=made.spec.feature_columns, kind="exact"
    )
    assert (report.rows, report.adversarial_rows, report.passed) == (0, 0, False)


def test_frames_differ_by_seed() -> None:
    assert not frame(10, 1).equals(frame(10, 2))
