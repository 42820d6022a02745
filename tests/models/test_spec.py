from __future__ import annotations

import pytest

from models.spec import PipelineSpec, SpecError, parse_spec
from tests.models.flights import PIPELINE, flight_delays, small


def test_the_committed_pipeline_parses() -> None:
    spec = flight_delays()

    assert spec.name == "flight-delays"
    assert spec.time not in spec.inputs
    assert "arr_delay" not in spec.inputs
    assert len(spec.inputs) == 17
    assert spec.inputs[:3] == ("carrier", "origin", "dest")


def test_features_are_by_default_what_neither_label_nor_time_uses() -> None:
    assert small().inputs == ("carrier", "origin", "distance", "hour", "weekend")


def test_a_columns_short_form_is_the_long_one() -> None:
    assert small(distance="  distance: number") == small(distance="  distance: {type: number}")


MISTAKES = [
    # replaced line, its mistaken form, line, field, words of the problem
    ("name", "name: Small Pipeline", 1, "name", "lower-case"),
    ("name", "nam: small", 1, "nam", "no such field"),
    ("delay", "  delay: {type: nmber}", 4, "columns.delay.type", "nmber"),
    ("delay", "  delay: {type: number, minimum: 5, maximum: 1}", 4, "columns.delay", "above maximum"),
    ("carrier", "  carrier: {type: category, minimum: 1}", 5, "columns.carrier", "minimum and maximum"),
    ("hour", "  hour: {type: integer, requird: true}", 8, "columns.hour.requird", "no such field"),
    ("hour", "  hour: {type: integer, required: yes please}", 8, "columns.hour.required", "boolean"),
    ("hour", "  delay: integer", 8, "columns.delay", "given twice"),
    ("hour", "  features: integer", 8, "columns.features", "reserved"),
    ("hour", "  __label: integer", 8, "columns.__label", "reserved"),
    ("label", "label: {}", 10, "label", "either column or expression"),
    ("label", "label: {column: delays}", 10, "label.column", "not among the columns"),
    ("label", "label: {column: carrier}", 10, "label.column", "category"),
    ("time", "time: hour", 11, "time", "timestamp"),
    ("time", "description: no time", 1, "time", "missing; name the timestamp column"),
    ("categories", "features: [delay]", 12, "features.0", "may not see it"),
    ("categories", "features: [hour, hour]", 12, "features", "twice"),
    ("categories", "training: {parameters: {linear_tree: true}}", 12, "training.parameters", "linear_tree"),
    ("categories", "training: {parameters: {seed: 3}}", 12, "training.parameters", "training.seed"),
    ("quality", "quality: {maximum_bad_rows: 5}", 13, "quality.maximum_bad_rows", "less than or equal to 1"),
    ("quality", "quiet: {seconds: 9, longest_wait_seconds: 1}", 13, "quiet", "shorter"),
    ("categories", "training: {parameters: {num_leafs: 3}}", 12, "training.parameters", "did you mean num_leaf"),
    ("categories", "features: [{column: distance, clip: [3, 1]}]", 12, "features.0", "smallest, largest"),
    ("categories", "features:\n  - hour\n  - {column: carrier, clip: [0, 1]}", 14, "features.1", "clip is for numbers"),
    ("categories", "features:\n  - hour\n  - {ratio: [hour, carrier]}", 14, "features.1", "carrier is a category"),
    ("categories", "features:\n  - hour\n  - {ratio: [hour, dist]}", 14, "features.1", "not among the columns"),
    ("categories", "features: [{column: when}]", 12, "features.0", "say which parts"),
    ("categories", "features: [{column: hour, parts: [hour]}]", 12, "features.0", "takes a timestamp column"),
    ("categories", "features: [{column: when, parts: [minute]}]", 12, "features.0.parts.0", "minute"),
    ("categories", "features: [{column: when, age_at: 2026-02-30}]", 12, "features.0.age_at", "2026-02-30"),
    ("categories", "features: [{column: hour, minimum_count: 3}]", 12, "features.0", "takes a category column"),
    ("categories", "features: [{column: hour, ratio: [hour, distance]}]", 12, "features.0", "one of column, ratio"),
    ("categories", "task: multiclass", 10, "label.classes", "multiclass task, which needs them"),
    ("label", "task: regression\nlabel: {column: delay, positive: late}", 11, "label", "binary task"),
    ("label", "task: multiclass\nlabel: {column: carrier, classes: [UA, UA]}", 11, "label", "different names"),
    ("label", "task: multiclass\nlabel: {column: delay, classes: [a, b]}", 11, "label.column", "number column"),
    ("categories", "weight: carrier", 12, "weight", "carrier is a category"),
    ("categories", "holdout: {by: group}", 12, "holdout", "needs a column"),
    ("categories", "holdout: {by: group, column: shop}", 12, "holdout.column", "not among the columns"),
    ("categories", "holdout: {by: hash, days: 3}", 12, "holdout", "says nothing about a holdout by hash"),
    ("categories", "window: {days: 3, partitions: 2}", 12, "window", "not both"),
    ("categories", "validation: {days: 3, fraction: 0.2}", 12, "validation", "not both"),
    ("categories", "window: {days: 3}\nvalidation: {days: 3}", 13, "validation.days", "leave none to train on"),
    ("categories", "training: {objective: gamma}", 12, "training.objective", "none of a binary task"),
    ("categories", "training: {objective: multiclassova}", 12, "training.objective", "they are no probabilities"),
    ("categories", "training: {objective: xentropy}", 12, "training.objective", "labels between 0 and 1"),
    ("categories", "training: {objective: lambdarank}", 12, "training.objective", "ranks within queries"),
    ("categories", "training: {objective: mse}", 12, "training.objective", "mse is called regression here"),
    ("categories", "training: {objective: binry}", 12, "training.objective", "'binary'"),
    ("categories", "training: {monotone: {dist: increasing}}", 12, "training.monotone.dist", "none of the features"),
    ("categories", "training: {monotone: {origin: increasing}}", 12, "training.monotone.origin", "category"),
    ("categories", "training: {class_weights: {maybe: 2}}", 12, "training.class_weights.maybe", "none of the classes"),
    ("categories", "training: {class_weights: {yes: 0}}", 12, "training.class_weights", "above zero"),
    ("categories", "slices: [distance]", 12, "slices", "distance is a number"),
    ("categories", "gate: {metric: rmse}", 12, "gate.metric", "no metric of a binary task"),
    ("categories", "gate: {minimum: {log_loss: 1}}", 12, "gate.minimum.log_loss", "use gate.maximum"),
    ("categories", "gate: {maximum: {auc: 1}}", 12, "gate.maximum.auc", "use gate.minimum"),
    ("time", "holdout: {by: time}", 1, "time", "choose another holdout"),
    ("time", "holdout: {by: hash}\nwindow: {days: 3}", 12, "window.days", "`time` column"),
    ("quality", "requests: {unknown_columns: warn}", 13, "requests.unknown_columns", "'error' or 'ignore'"),
    ("quality", "requests: {missing_columns: ignore}", 13, "requests.missing_columns", "'missing' or 'error'"),
    ("quality", "requests: {missing: error}", 13, "requests.missing", "no such field"),
    ("categories", "weight: delay", 12, "weight", "delay makes the label"),
    ("categories", "features: [{column: distance, clip: [.nan, 1]}]", 12, "features.0.clip.0", "finite"),
    ("quality", "gate: {improvement: .nan}", 13, "gate.improvement", "finite"),
    ("quality", "gate: {maximum: {log_loss: .nan}}", 13, "gate.maximum.log_loss", "finite"),
    ("categories", "training: {class_weights: {yes: .inf}}", 12, "training.class_weights", ""),
    ("categories", "training: {parameters: {alpha: '1 linear_tree=1'}}", 12, "training.parameters", "has a blank"),
    ("quality", "quality: &q {more: *q}", 1, "", "within itself"),
    ("quality", f"quality: {'[' * 5000}", 1, "", "nested too deeply"),
    ("quality", "quality: [", 13, "", "not YAML"),
    ("quality", "quality: !foo x", 13, "", "not YAML"),
    ("quality", "quality: !!int x", 1, "", "not YAML"),
    ("quality", "? [a, b]", 13, "", "not YAML"),
    ("quality", "<<: 3", 13, "", "not YAML"),
]


@pytest.mark.parametrize(("replaced", "by", "line", "field", "words"), MISTAKES, ids=[row[1] for row in MISTAKES])
def test_a_mistake_names_file_line_and_field(replaced: str, by: str, line: int, field: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        small(**{replaced: by})

    error = caught.value
    assert (error.source, error.line, error.field) == ("small.yaml", line, field)
    assert words in error.problem
    assert str(error).startswith(f"small.yaml:{line}")


@pytest.mark.parametrize("objective", ["regression_l1", "quantile", "mape"])
def test_monotone_is_not_for_losses_whose_leaves_are_computed_anew(objective: str) -> None:
    changed = f"task: regression\ntraining: {{objective: {objective}, monotone: {{hour: increasing}}}}"
    with pytest.raises(SpecError, match=f"training.monotone: LightGBM has none for the objective {objective}"):
        small(label="label: {column: delay}", categories=changed)


@pytest.mark.parametrize("text", ["", "just text", "- a list", "1"])
def test_what_is_no_mapping_is_no_pipeline(text: str) -> None:
    with pytest.raises(SpecError, match=r"^x\.yaml:1: a pipeline is a mapping"):
        parse_spec(text, source="x.yaml")


def test_a_date_is_a_text() -> None:
    assert small(name="name: small\ndescription: 2013-13-45").description == "2013-13-45"


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        small().name = "other"


CHANGES = [
    # replaced line, its new form, does the fingerprint change, does the data fingerprint change
    ("name", "name: small\ndescription: words", False, False),
    ("name", "name: small\ngate: {minimum_auc: 0.7}", False, False),
    ("name", "name: small\nquiet: {seconds: 1}", False, False),
    ("name", "name: small\ntraining: {seed: 8}", True, False),
    ("name", "name: small\nholdout: {days: 3}", True, False),
    ("categories", "categories: {minimum_count: 3, maximum: 3}", True, False),
    ("delay", "  delay: {type: number, minimum: -100, maximum: 3000}", True, True),
    ("label", "label: {expression: delay > 30}", True, True),
    ("categories", "features: [hour]", True, True),
    ("categories", "categories: {minimum_count: 2, maximum: 3}\nfilter: hour > 3", True, True),
    ("categories", "categories: {minimum_count: 2, maximum: 3}\nweight: distance", True, True),
    ("categories", "categories: {minimum_count: 2, maximum: 3}\nwindow: {partitions: 3}", True, False),
    ("categories", "categories: {minimum_count: 2, maximum: 3}\nslices: [carrier]", False, False),
    ("categories", "categories: {minimum_count: 2, maximum: 3}\nholdout: {by: hash}", True, False),
    ("categories", "categories: {minimum_count: 2, maximum: 3}\nholdout: {by: group, column: origin}", True, True),
    ("categories", "categories: {minimum_count: 2, maximum: 3}\ntraining: {boosting: dart}", True, False),
    ("quality", "quality: {maximum_bad_rows: 0.5}", True, True),
    ("distance", "  distance: {minimum: 0, type: number}", False, False),
]


@pytest.mark.parametrize(("replaced", "by", "whole", "data"), CHANGES, ids=[row[1] for row in CHANGES])
def test_fingerprints_change_with_what_they_stand_for(replaced: str, by: str, whole: bool, data: bool) -> None:
    before, after = small(), small(**{replaced: by})

    assert (before.fingerprint != after.fingerprint) == whole
    assert (before.data_fingerprint != after.data_fingerprint) == data


def test_features_that_read_the_same_columns_leave_clean_partitions_as_they_are() -> None:
    plain = small(categories="features: [carrier, distance, hour]")
    made = small(categories="features: [carrier, {column: distance, clip: [0, 9]}, {ratio: [distance, hour]}]")

    assert plain.inputs == made.inputs
    assert plain.data_fingerprint == made.data_fingerprint
    assert plain.fingerprint != made.fingerprint


def test_a_label_with_quoted_columns_hides_them() -> None:
    text = (
        "name: x\ncolumns: {when: timestamp, 'a b': number, c: number}\nlabel: {expression: '\"a b\" > 3'}\ntime: when"
    )
    assert parse_spec(text, source="x.yaml").inputs == ("c",)


def test_classes_may_look_like_numbers_and_truths() -> None:
    spec = small(label="task: multiclass\nlabel: {column: hour, classes: [1, 2, true, yes]}")
    assert spec.classes == ("1", "2", "true", "yes")


def test_fingerprints_survive_a_round_trip_of_the_text() -> None:
    again: PipelineSpec = parse_spec(PIPELINE.replace("\n", "\r\n"), source="other.yaml")

    assert again.fingerprint == small().fingerprint
