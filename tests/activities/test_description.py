"""A version in words."""

from __future__ import annotations

import json

from activities.description import LINE_CHARACTERS, Facts, describe
from models.manifest import InputColumn, Signature

FACTS = Facts(
    pipeline="shops",
    signature=Signature((InputColumn("price", "number"), InputColumn("town", "category")), ("kept", "sold"), "sold"),
    decision={"sentence": "Promoted: it is better."},
    evaluation={
        "challenger": {"auc": 0.75, "log_loss": 0.5, "rows": 10},
        "champion": {"auc": 0.5},
        "champion_version": 3,
    },
    dataset={"partitions": [{"rows": 20}], "id": "0123456789abcdef"},
    window={},
    example={"price": [1.5, None], "town": ["L'Aquila", None], **{f"column{n}": [float(n)] for n in range(20)}},
)


def code(kind: str) -> str:
    return describe(FACTS).partition(f"```{kind}\n")[2].partition("\n```")[0]


def test_the_figures_stand_in_columns() -> None:
    assert code("text").splitlines() == [
        "           this version   champion then (version 3)",
        "AUC              0.7500                      0.5000",
        "log loss         0.5000                           -",
    ]


def test_the_call_can_be_pasted_and_fits_on_the_page() -> None:
    row = {name: values[0] for name, values in FACTS.example.items()}
    given: dict[str, object] = {}
    exec(code("python").partition('champion")\n')[2].rpartition("\n")[0], given)  # noqa: S102 (what a reader does)
    assert given["row"] == row
    sent = code("sh").partition("-d '")[2].rpartition("'")[0].replace("'\\''", "'")
    assert json.loads(sent) == {"dataframe_records": [row]}
    assert max(len(line) for line in code("python").splitlines()) <= LINE_CHARACTERS
