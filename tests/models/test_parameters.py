"""LightGBM's parameters: the names are the library's, and each has one place."""

from __future__ import annotations

import lightgbm as lgb
import pytest

from models.parameters import PASSED_ON, REFUSED, allowed_names, canonical


def test_the_names_are_those_of_the_library() -> None:
    table = lgb.basic._ConfigAliases._get_all_param_aliases()
    assert not PASSED_ON.keys() & REFUSED.keys()
    for name, others in {**PASSED_ON, **REFUSED}.items():
        assert {name, *others} == set(table[name]), name


def test_other_names_are_known() -> None:
    assert canonical({"eta": 0.1, "max_leaves": 7}) == {"learning_rate": 0.1, "num_leaves": 7}
    assert {"eta", "num_leaves"} <= set(allowed_names())
    assert not {"seed", "boosting"} & set(allowed_names())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("num_leafs", "did you mean num_leaf"),
        ("input_model", "no parameter of LightGBM that shapes a model"),
        ("max_iter", "use training.rounds"),
        ("random_state", "use training.seed"),
        ("boost", "use training.boosting"),
        ("mc", "use training.monotone"),
        ("linear_trees", "linear models"),
        ("force_col_wise", "in one order"),
    ],
)
def test_what_may_not_be_set_is_refused_with_the_reason(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        canonical({name: 1})
    assert name in str(caught.value)


def test_one_parameter_under_two_names_is_refused() -> None:
    with pytest.raises(ValueError, match="eta is given twice"):
        canonical({"learning_rate": 0.1, "eta": 0.2})
