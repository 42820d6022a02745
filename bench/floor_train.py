"""The floor for `bench.train`: one script that reads a year of flights, trains, measures and exports, and nothing else.

No checks, no quarantine, no cache, no parity, no golden rows; every column is named. It does the same work with the
same libraries as a run of the pipeline: the same rows teach, stop and judge, and the same trees come out.
"""

from __future__ import annotations

import io
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import onnxruntime as ort
import polars as pl
from onnx import TensorProto, helper, numpy_helper
from sklearn import metrics

CATEGORIES = ("carrier", "origin", "dest")
NUMBERS = (
    "month", "day", "hour", "minute", "distance", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust",
    "precip", "pressure", "visib",
)  # fmt: skip
FEATURES = len(CATEGORIES) + len(NUMBERS)
DAY = 86_400.0


def run(files: dict[str, bytes], folds: dict[str, np.ndarray[Any, Any]], rounds: int, threads: int) -> dict[str, Any]:
    """`files` are CSVs by name; `folds` say which rows only stop training (below 0.1), as the pipeline has them."""
    frames = {name: _read(data) for name, data in sorted(files.items())}
    year = pl.concat(frames.values())
    ranks = {name: _ranks(year[name]) for name in CATEGORIES}
    features = _feature_graph(ranks)
    session = _session(features.SerializeToString(), threads)
    x = np.concatenate([session.run(None, _feed(frame))[0] for frame in frames.values()])
    y = year["late"].to_numpy().astype(np.float32)
    time, fold = year["time"].to_numpy(), np.concatenate([folds[name] for name in frames])
    held = time >= time.max() - 7 * DAY
    stops = ~held & (fold < 0.1)
    teaches = ~held & ~stops
    booster = _train(x[teaches], y[teaches], x[stops], y[stops], rounds, threads)
    model = _export(booster, features)
    judged = year.filter(held)
    scores = _session(model, threads).run(None, _feed(judged))[0][:, 1]
    return {"model": model, "trees": booster.best_iteration, **_measure(y[held], scores)}


def _read(data: bytes) -> pl.DataFrame:
    frame = pl.read_csv(io.BytesIO(data), schema_overrides=dict.fromkeys(NUMBERS, pl.Float64), infer_schema_length=1000)
    frame = frame.filter(pl.col("arr_delay").is_not_null())
    return frame.select(
        *(pl.col(name).fill_null("") for name in CATEGORIES),
        *(pl.col(name).fill_null(np.nan) for name in NUMBERS),
        late=pl.col("arr_delay") > 15,
        time=pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC").dt.epoch("s").cast(pl.Float64),
    )


def _ranks(values: pl.Series) -> list[str]:
    counts = values.value_counts().filter((pl.col("count") >= 20) & (pl.col(values.name) != ""))
    return [str(name) for name in counts.sort(["count", values.name], descending=[True, False])[values.name]]


def _feed(frame: pl.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    return {name: frame[name].to_numpy() for name in (*CATEGORIES, *NUMBERS)}


def _session(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model, options)


def _feature_graph(ranks: dict[str, list[str]]) -> onnx.ModelProto:
    text, number = TensorProto.STRING, TensorProto.DOUBLE
    inputs = [helper.make_tensor_value_info(name, text, ["N"]) for name in CATEGORIES]
    inputs += [helper.make_tensor_value_info(name, number, ["N"]) for name in NUMBERS]
    nodes = []
    for name, values in ranks.items():
        keys = helper.make_tensor("k", text, [len(values) + 1], [b"", *(value.encode() for value in values)])
        codes = helper.make_tensor("v", number, [len(values) + 1], [0.0, *range(2, len(values) + 2)])
        default = helper.make_tensor("d", number, [1], [1.0])
        nodes.append(
            helper.make_node("LabelEncoder", [name], [f"{name}_code"], domain="ai.onnx.ml", keys_tensor=keys,
                             values_tensor=codes, default_tensor=default)
        )  # fmt: skip
    nodes += [
        helper.make_node("Concat", [*(f"{name}_code" for name in CATEGORIES), *NUMBERS], ["flat"], axis=0),
        helper.make_node("Cast", ["flat"], ["narrow"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["narrow", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["x"], perm=[1, 0]),
    ]
    output = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [FEATURES, -1])
    graph = helper.make_graph(nodes, "features", inputs, [output], [shape])
    return helper.make_model(graph, opset_imports=_opsets(), ir_version=10)


def _opsets() -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]


def _train(x: Any, y: Any, x_stop: Any, y_stop: Any, rounds: int, threads: int) -> lgb.Booster:
    parameters = {
        "objective": "binary", "metric": "binary_logloss", "num_leaves": 63, "learning_rate": 0.05,
        "min_data_in_leaf": 50, "seed": 7, "data_random_seed": 7, "num_threads": threads,
        "deterministic": True, "force_row_wise": True, "verbosity": -1,
    }  # fmt: skip
    training = lgb.Dataset(x, y, params=parameters)
    stop = lgb.Dataset(x_stop, y_stop, reference=training)
    stopping = lgb.early_stopping(30, verbose=False)
    return lgb.train(parameters, training, rounds, valid_sets=[stop], callbacks=[stopping])


def _measure(labels: Any, scores: Any) -> dict[str, float]:
    return {
        "auc": float(metrics.roc_auc_score(labels, scores)),
        "average_precision": float(metrics.average_precision_score(labels, scores)),
        "log_loss": float(metrics.log_loss(labels, scores)),
        "brier": float(metrics.brier_score_loss(labels, scores)),
        "accuracy": float(metrics.accuracy_score(labels, scores > 0.5)),
    }


def _export(booster: lgb.Booster, features: onnx.ModelProto) -> bytes:
    dump = booster.dump_model(num_iteration=booster.best_iteration)
    ints: dict[str, list[int]] = {name: [] for name in ("roots", "features", "true", "false", "tl", "fl", "missing")}
    splits: list[float] = []
    leaves: list[float] = []
    for tree in dump["tree_info"]:
        base, order, stack = len(splits), [], [tree["tree_structure"]]
        while stack:
            node = stack.pop()
            if "split_feature" in node:
                order.append(node)
                stack += [node["right_child"], node["left_child"]]
        place = {id(node): base + index for index, node in enumerate(order)}
        ints["roots"].append(base)
        for node in order:
            ints["features"].append(node["split_feature"])
            splits.append(float("inf") if node["threshold"] >= 1e300 else node["threshold"])
            left = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0
            ints["missing"].append(int(left))
            for side, kind, child in (("true", "tl", node["left_child"]), ("false", "fl", node["right_child"])):
                leaf = "split_feature" not in child
                ints[kind].append(int(leaf))
                ints[side].append(len(leaves) if leaf else place[id(child)])
                if leaf:
                    leaves.append(child["leaf_value"])
    trees = helper.make_node(
        "TreeEnsemble", ["wide"], ["scores"], domain="ai.onnx.ml", n_targets=2, aggregate_function=1, post_transform=0,
        tree_roots=ints["roots"], nodes_featureids=ints["features"],
        nodes_splits=numpy_helper.from_array(np.array(splits), "s"),
        nodes_modes=numpy_helper.from_array(np.zeros(len(splits), np.uint8), "m"),
        nodes_truenodeids=ints["true"], nodes_falsenodeids=ints["false"], nodes_trueleafs=ints["tl"],
        nodes_falseleafs=ints["fl"], nodes_missing_value_tracks_true=ints["missing"],
        leaf_targetids=[1] * len(leaves), leaf_weights=numpy_helper.from_array(np.array(leaves), "w"),
    )  # fmt: skip
    tail = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        trees,
        helper.make_node("Softmax", ["scores"], ["probability"], axis=1),
    ]
    output = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, ["N", 2])
    graph = features.graph
    whole = helper.make_graph([*graph.node, *tail], "model", graph.input, [output], graph.initializer)
    return bytes(helper.make_model(whole, opset_imports=_opsets(), ir_version=10).SerializeToString())
