from __future__ import annotations

import pytest

from models.spec import PipelineSpec, SpecError, parse_spec
from tests.models.flights import PIPELINE, flight_delays, small


def test_the_committed_pipeline_parses() -> None:
    spec = flight_delays()

    assert spec.name == "flight-delays"
    assert spec.time not in spec.features
    assert "arr_delay" not in spec.features
    assert len(spec.features) == 17
    assert spec.features[:3] == ("carrier", "origin", "dest")


def test_features_are_by_default_what_neither_label_nor_time_uses() -> None:
    assert small().features == ("carrier", "origin", "distance", "hour", "weekend")


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
    ("time", "description: no time", 1, "time", "missing"),
    ("categories", "features: [delay]", 12, "features", "may not see it"),
    ("categories", "features: [hour, hour]", 12, "features", "twice"),
    ("categories", "training: {parameters: {linear_tree: true}}", 12, "training.parameters", "linear_tree"),
    ("categories", "training: {parameters: {seed: 3}}", 12, "training.parameters", "training.seed"),
    ("quality", "quality: {maximum_bad_rows: 5}", 13, "quality.maximum_bad_rows", "less than or equal to 1"),
    ("quality", "quiet: {seconds: 9, longest_wait_seconds: 1}", 13, "quiet", "shorter"),
    ("categories", "training: {parameters: {num_leafs: 3}}", 12, "training.parameters", "did you mean num_leaf"),
    ("quality", "requests: {unknown_columns: warn}", 13, "requests.unknown_columns", "'error' or 'ignore'"),
    ("quality", "requests: {missing_columns: ignore}", 13, "requests.missing_columns", "'missing' or 'error'"),
    ("quality", "requests: {missing: error}", 13, "requests.missing", "no such field"),
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
    ("quality", "quality: {maximum_bad_rows: 0.5}", True, True),
    ("distance", "  distance: {minimum: 0, type: number}", False, False),
]


@pytest.mark.parametrize(("replaced", "by", "whole", "data"), CHANGES, ids=[row[1] for row in CHANGES])
def test_fingerprints_change_with_what_they_stand_for(replaced: str, by: str, whole: bool, data: bool) -> None:
    before, after = small(), small(**{replaced: by})

    assert (before.fingerprint != after.fingerprint) == whole
    assert (before.data_fingerprint != after.data_fingerprint) == data


def test_fingerprints_survive_a_round_trip_of_the_text() -> None:
    again: PipelineSpec = parse_spec(PIPELINE.replace("\n", "\r\n"), source="other.yaml")

    assert again.fingerprint == small().fingerprint
