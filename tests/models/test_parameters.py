"""LightGBM's parameters: the names are the library's, and each has one place."""

from __future__ import annotations

import lightgbm as lgb
import pytest

from models.parameters import PASSED_ON, REFUSED, allowed_names, canonical, check_values


def test_the_names_are_those_of_the_library() -> None:
    table = lgb.basic._ConfigAliases._get_all_param_aliases()
    assert not PASSED_ON.keys() & REFUSED.keys()
    for name, others in {**PASSED_ON, **REFUSED}.items():
        assert {name, *others} == set(table[name]), name


ABOUT_OTHER_THINGS = """
auc_mu_weights bagging_by_query config convert_model convert_model_language data eval_at first_metric_only gpu_device_id
gpu_device_id_list gpu_platform_id gpu_use_dp group_column header ignore_column input_model is_provide_training_metric
label_column label_gain lambdarank_norm lambdarank_position_bias_regularization lambdarank_truncation_level
linear_lambda local_listen_port machine_list_filename machines metric_freq multi_error_top_k num_gpu
num_iteration_predict num_machines objective_seed output_model output_result parser_config_file pre_partition
precise_float_parser pred_early_stop pred_early_stop_freq pred_early_stop_margin predict_contrib
predict_disable_shape_check predict_leaf_index predict_raw_score refit_decay_rate save_binary
saved_feature_importance_type snapshot_freq start_iteration_predict task time_out top_k tree_learner two_round valid
verbosity weight_column
"""
"""Files, machines, predicting, ranking, metrics and linear trees: nothing of them shapes a model that there can be."""


def test_every_parameter_of_the_library_has_a_place() -> None:
    table = lgb.basic._ConfigAliases._get_all_param_aliases()
    assert table.keys() - PASSED_ON.keys() - REFUSED.keys() == set(ABOUT_OTHER_THINGS.split())


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"alpha": "0.5 linear_tree=true"}, "alpha: '0.5 linear_tree=true' has a blank"),
        ({"interaction_constraints": "rubbish"}, "interaction_constraints: takes lists"),
        ({"interaction_constraints": "[0, 1]"}, "has a blank"),
        ({"early_stopping_min_delta": -1}, "zero or above"),
        ({"early_stopping_min_delta": "much"}, "is a number"),
    ],
)
def test_a_value_that_would_be_read_otherwise_is_refused(parameters: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_values(parameters)


def test_values_that_are_taken() -> None:
    check_values({"interaction_constraints": "[0,1],[2]", "early_stopping_min_delta": 0.5, "num_leaves": 7})


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
        ("cat_smooth", "inside the feature graph"),
        ("feature_penalty", "a list by feature"),
        ("forced_splits", "names a file"),
    ],
)
def test_what_may_not_be_set_is_refused_with_the_reason(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        canonical({name: 1})
    assert name in str(caught.value)


def test_one_parameter_under_two_names_is_refused() -> None:
    with pytest.raises(ValueError, match="eta is given twice"):
        canonical({"learning_rate": 0.1, "eta": 0.2})
