"""Small boosters and feature graphs for tests of training, export and what judges them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from models.features import compute_matrix, feature_names, feeds, fit_features, signature
from models.manifest import HoldoutRule, Signature
from models.matrices import MatrixPart, matrix_part
from models.partitions import LABEL, TIME
from models.profiles import profile
from models.spec import PipelineSpec, parse_spec
from models.training import TrainedModel, train

SPEC = """
name: shops
columns:
  at: timestamp
  sold: {type: integer, minimum: 0, maximum: 1}
  price: number
  visits: number
  town: category
label: {column: sold}
time: at
categories: {minimum_count: 2}
training: {rounds: 30, minimum_rows: 50, parameters: {num_leaves: 15, min_data_in_leaf: 5}}
"""
FAR = HoldoutRule("time", 1e12)
"""A holdout that begins after all rows."""


def spec(**training: Any) -> PipelineSpec:
    made = parse_spec(SPEC, source="shops.yaml")
    return made.model_copy(update={"training": made.training.model_copy(update=training)})


def frame(rows: int, seed: int = 0, *, missing: float = 0.1) -> pl.DataFrame:
    """A clean frame whose label depends on all columns. Some numbers are tiny, some are missing."""
    rng = np.random.default_rng(seed)
    price = rng.normal(0, 1, rows)
    visits = rng.choice([0.0, -1e-35, 1e-35, 1.0, 2.0, 7.5], rows)
    town = rng.choice(["Ghent", "Lille", "Porto", ""], rows)
    score = price + (visits > 1) - (town == "Ghent")
    price[rng.random(rows) < missing] = np.nan
    return pl.DataFrame(
        {
            "price": pl.Series(price, nan_to_null=True),
            "visits": visits,
            "town": town,
            LABEL: (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(np.uint8),
            TIME: np.arange(rows, dtype=np.float64),
        }
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """A booster with what belongs to it."""

    spec: PipelineSpec
    model: TrainedModel
    graph: bytes
    signature: Signature
    frame: pl.DataFrame

    def feeds(self) -> dict[str, np.ndarray[Any, Any]]:
        return feeds(self.frame, self.spec)

    def matrix(self) -> np.ndarray[Any, Any]:
        return compute_matrix(self.graph, self.frame, self.spec)


def parts(data: pl.DataFrame, graph: bytes, of: PipelineSpec) -> list[MatrixPart]:
    return [matrix_part(compute_matrix(graph, data, of), data, key="part")]


@cache
def trained(rows: int = 600, seed: int = 0, missing: float = 0.1) -> Trained:
    """A booster trained on generated rows; made once."""
    of, data = spec(), frame(rows, seed, missing=missing)
    graph = fit_features(profile(data, of), of)
    model = train(parts(data, graph, of), spec=of, feature_names=feature_names(of), threads=1, holdout=FAR)
    return Trained(of, model, graph, signature(of), data)
