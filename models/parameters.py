"""LightGBM's parameters: which a pipeline may set, under which names, and why not the others.

Names as in LightGBM 4.7 (https://lightgbm.readthedocs.io/en/stable/Parameters.html); a test compares them with the
library's own table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from models.errors import bounded

_PASSED_ON = {
    "alpha": "",
    "bagging_fraction": "bagging sub_row subsample",
    "bagging_freq": "subsample_freq",
    "bagging_seed": "bagging_fraction_seed",
    "bin_construct_sample_cnt": "subsample_for_bin",
    "boost_from_average": "",
    "cegb_penalty_split": "",
    "cegb_tradeoff": "",
    "data_random_seed": "data_seed",
    "data_sample_strategy": "",
    "early_stopping_min_delta": "",
    "enable_bundle": "bundle is_enable_bundle",
    "drop_rate": "rate_drop",
    "drop_seed": "",
    "extra_seed": "",
    "extra_trees": "extra_tree",
    "fair_c": "",
    "feature_fraction": "sub_feature colsample_bytree",
    "feature_fraction_bynode": "colsample_bynode sub_feature_bynode",
    "feature_fraction_seed": "",
    "feature_pre_filter": "",
    "histogram_pool_size": "hist_pool_size",
    "interaction_constraints": "",
    "is_enable_sparse": "sparse is_sparse enable_sparse",
    "is_unbalance": "unbalance unbalanced_sets",
    "lambda_l1": "reg_alpha l1_regularization",
    "lambda_l2": "lambda reg_lambda l2_regularization",
    "learning_rate": "eta shrinkage_rate",
    "max_bin": "max_bins",
    "max_delta_step": "max_leaf_output max_tree_output",
    "max_depth": "",
    "max_drop": "",
    "min_data_in_bin": "",
    "min_data_in_leaf": "min_data min_samples_leaf min_child_samples min_data_per_leaf",
    "min_gain_to_split": "min_split_gain",
    "min_sum_hessian_in_leaf": "min_hessian min_sum_hessian min_child_weight min_sum_hessian_per_leaf",
    "monotone_constraints_method": "mc_method monotone_constraining_method",
    "monotone_penalty": "mc_penalty ms_penalty monotone_splits_penalty",
    "neg_bagging_fraction": "neg_bagging neg_sub_row neg_subsample",
    "num_grad_quant_bins": "",
    "num_leaves": "max_leaf num_leaf max_leaves max_leaf_nodes",
    "other_rate": "",
    "path_smooth": "",
    "pos_bagging_fraction": "pos_bagging pos_sub_row pos_subsample",
    "poisson_max_delta_step": "",
    "quant_train_renew_leaf": "",
    "reg_sqrt": "",
    "scale_pos_weight": "",
    "sigmoid": "",
    "skip_drop": "",
    "stochastic_rounding": "",
    "top_rate": "",
    "tweedie_variance_power": "",
    "uniform_drop": "",
    "use_missing": "",
    "use_quantized_grad": "",
    "xgboost_dart_mode": "",
}
_ENCODED = ("", "categories are encoded inside the feature graph")
_REFUSED = {
    "linear_tree": ("linear_trees", "its leaves hold linear models, which an ONNX tree ensemble cannot express"),
    "zero_as_missing": ("", "ONNX trees treat zero as a number, so zeros would take the wrong branch"),
    "boosting": ("boost boosting_type", "use training.boosting"),
    "monotone_constraints": (
        "mc monotonic_cst monotone_constraint",
        "use training.monotone, which names the features",
    ),
    "objective": ("app loss application objective_type", "use training.objective"),
    "metric": ("metrics metric_types", "the objective decides when to stop; what is judged is gate.metric"),
    "categorical_feature": (
        "cat_column cat_feature categorical_column categorical_features",
        "categories are encoded inside the feature graph",
    ),
    "num_class": ("num_classes", "the task decides the number of classes"),
    "num_iterations": (
        "n_iter nrounds max_iter num_tree num_round num_trees num_rounds n_estimators num_iteration num_boost_round",
        "use training.rounds",
    ),
    "seed": ("random_seed random_state", "use training.seed"),
    "early_stopping_round": ("early_stopping n_iter_no_change early_stopping_rounds", "use training.early_stopping"),
    "num_threads": ("n_jobs nthread nthreads num_thread", "set RATCHET_TRAINING_THREADS"),
    "deterministic": ("", "training always is"),
    "force_row_wise": ("", "training has to sum in one order, and always does it by rows"),
    "force_col_wise": ("", "training has to sum in one order, and always does it by rows"),
    "device_type": ("device", "training is on CPUs"),
    **dict.fromkeys(("cat_l2", "cat_smooth", "max_cat_threshold", "max_cat_to_onehot", "min_data_per_group"), _ENCODED),
    **dict.fromkeys(
        ("cegb_penalty_feature_coupled", "cegb_penalty_feature_lazy", "max_bin_by_feature"),
        ("", "it is a list by feature, and their order is Ratchet's"),
    ),
    "feature_contri": (
        "fc fp feature_contrib feature_penalty",
        "it is a list by feature, and their order is Ratchet's",
    ),
    "forcedbins_filename": ("", "it names a file, which workers do not have"),
    "forcedsplits_filename": (
        "fs forced_splits forced_splits_file forced_splits_filename",
        "it names a file, which workers do not have",
    ),
}

REFUSED_OBJECTIVES: Mapping[str, str] = {
    "multiclassova": "its scores of the classes do not add up to one, so they are no probabilities; use multiclass",
    "cross_entropy": "it is for labels between 0 and 1; for classes it is binary",
    "cross_entropy_lambda": "it is for labels between 0 and 1; for classes use binary",
    "lambdarank": "it ranks within queries, which a pipeline does not have",
    "rank_xendcg": "it ranks within queries, which a pipeline does not have",
    "custom": "a pipeline has no code",
}
"""LightGBM's other objectives, and why a pipeline cannot have them."""
_OTHER_OBJECTIVES = {
    "mean_squared_error mse l2 root_mean_squared_error rmse": "regression",
    "mean_absolute_error mae l1": "regression_l1",
    "mean_absolute_percentage_error": "mape",
    "softmax": "multiclass",
    "multiclass_ova ova ovr": "multiclassova",
    "xentropy": "cross_entropy",
    "xentlambda": "cross_entropy_lambda",
    "xendcg xe_ndcg xe_ndcg_mart xendcg_mart": "rank_xendcg",
    "none null na": "custom",
}
_OBJECTIVE_OF = {other: name for others, name in _OTHER_OBJECTIVES.items() for other in others.split()}

PASSED_ON: Mapping[str, tuple[str, ...]] = {name: tuple(others.split()) for name, others in _PASSED_ON.items()}
"""LightGBM's name of each parameter that a pipeline may set, with its other names."""
REFUSED: Mapping[str, tuple[str, ...]] = {name: tuple(others.split()) for name, (others, _) in _REFUSED.items()}
"""The same of parameters that would make the served model another than the trained one, or that have another place."""

_CANONICAL = {other: name for names in (PASSED_ON, REFUSED) for name in names for other in (name, *names[name])}


def allowed_names() -> list[str]:
    """Every name that a pipeline may use, sorted."""
    return sorted(name for name, canonical in _CANONICAL.items() if canonical in PASSED_ON)


def check_objective(name: str) -> None:
    """Raises ValueError for one of LightGBM's objectives, by any name, that a pipeline cannot have or calls another."""
    known = _OBJECTIVE_OF.get(name, name)
    if known in REFUSED_OBJECTIVES:
        raise ValueError(f"{name} cannot be used: {REFUSED_OBJECTIVES[known]}")
    if known != name:
        raise ValueError(f"{name} is called {known} here")


def check_values(parameters: Mapping[str, object]) -> None:
    """Raises ValueError for a value, under LightGBM's own name, that it would read in another way or not at all."""
    for name, value in parameters.items():
        if isinstance(value, str) and re.search(r"[\s=]", value):
            # LightGBM joins all parameters with blanks.
            raise ValueError(
                f"{name}: {bounded(value, 40)!r} has a blank or an equals sign, which its value cannot have"
            )
    if (given := parameters.get("interaction_constraints", "")) and not _is_lists_of_numbers(given):
        raise ValueError("interaction_constraints: takes lists of features' numbers without blanks, as '[0,1],[2,3]'")
    delta = parameters.get("early_stopping_min_delta", 0.0)
    if isinstance(delta, bool) or not isinstance(delta, int | float) or delta < 0:
        raise ValueError("early_stopping_min_delta: is a number, zero or above")


def _is_lists_of_numbers(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\[\d+(,\d+)*\](,\[\d+(,\d+)*\])*", value) is not None


def canonical(parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters under LightGBM's own names, which win over other names of the same. Raises ValueError."""
    named: dict[str, object] = {}
    for name, value in parameters.items():
        known = _CANONICAL.get(name)
        if known is None:
            near = difflib.get_close_matches(name, allowed_names(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name} is no parameter of LightGBM that shapes a model{hint}")
        if known in _REFUSED:
            raise ValueError(f"{name} cannot be set here: {_REFUSED[known][1]}")
        if known in named:
            raise ValueError(f"{name} is given twice (other names of {known} count)")
        named[known] = value
    return named
