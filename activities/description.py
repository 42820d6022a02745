"""A version in words, in Markdown: what MLflow's pages show first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.manifest import Signature

MAX_COLUMNS = 40
"""Columns that the table names: a description has to fit into 5,000 characters."""
COUNTS = frozenset({"rows", "positives"})
LINE_CHARACTERS = 90
"""MLflow's page shows that much of a line of code; what is longer has to be scrolled to."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a description tells. `window` has data_from, data_to and holdout_from (ISO 8601 UTC), where known."""

    pipeline: str
    signature: Signature
    decision: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    dataset: Mapping[str, Any]
    window: Mapping[str, str]
    example: Mapping[str, Sequence[float | str | None]]


def describe(facts: Facts) -> str:
    """Decision, figures against the champion's, data, how to call it, columns."""
    parts = [facts.decision["sentence"], _figures(facts), _data(facts), _calls(facts), _columns(facts.signature)]
    return "\n\n".join(part for part in parts if part)


def _figures(facts: Facts) -> str:
    from models.plots.evidence import metric_label

    ours, theirs = facts.evaluation["challenger"], facts.evaluation["champion"]
    table = [["", "this version"], *([metric_label(name), _figure(ours[name])] for name in ours if name not in COUNTS)]
    if theirs:
        head = f"champion then (version {facts.evaluation['champion_version']})"
        names = [name for name in ours if name not in COUNTS]
        table = [
            [*line, each] for line, each in zip(table, [head, *(_figure(theirs.get(n)) for n in names)], strict=True)
        ]
    return _lined_up(table)


def _lined_up(table: Sequence[Sequence[str]]) -> str:
    """As code: MLflow's pages set the columns of a Markdown table without any space between them."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "   ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(row))
        for row in (zip(line, widths, strict=True) for line in table)
    )
    return "\n".join(["```text", *(line.rstrip() for line in lines), "```"])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _data(facts: Facts) -> str:
    partitions, window = facts.dataset["partitions"], facts.window
    rows = sum(entry["rows"] for entry in partitions)
    files = "1 file" if len(partitions) == 1 else f"{len(partitions):,} files"
    when = f", from {_day(window['data_from'])} to {_day(window['data_to'])}" if "data_from" in window else ""
    held = f" The rows from {window['holdout_from']} on were held out to judge it." if "holdout_from" in window else ""
    where = "Which files, with their eTags: `lineage/partitions.csv` among the artifacts of the source run."
    return f"**Data:** {rows:,} rows of {files}{when}.{held} {where} Dataset `{facts.dataset['id'][:12]}`."


def _day(moment: str) -> str:
    return moment.partition("T")[0]


def _calls(facts: Facts) -> str:
    row = {name: values[0] for name, values in facts.example.items() if values}
    model = f"models:/{facts.pipeline}@champion"
    python = _packed([f"{name!r}: {value!r}" for name, value in row.items()])
    plain = _packed([f"{json.dumps(name)}: {json.dumps(value)}" for name, value in row.items()])
    return f"""**Ask it** (`models:/{facts.pipeline}/NUMBER` for this version, champion or not):

```python
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("{model}")
row = {{
{python}
}}
model.predict(pd.DataFrame([row]))
```

```sh
mlflow models serve -m {model} --env-manager local -p 5001
curl 127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d '{{"dataframe_records": [{{
{_quoted(plain)}
}}]}}'
```"""


def _packed(entries: Sequence[str]) -> str:
    """The entries with commas, as many on a line as it has room for."""
    lines: list[str] = []
    for place, entry in enumerate(entries, start=1):
        text = entry if place == len(entries) else f"{entry},"
        if lines and len(lines[-1]) + 1 + len(text) <= LINE_CHARACTERS:
            lines[-1] += f" {text}"
        else:
            lines.append(f"  {text}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Within single quotes of a shell."""
    return text.replace("'", "'\\''")


def _columns(signature: Signature) -> str:
    shown = signature.inputs[:MAX_COLUMNS]
    rest = len(signature.inputs) - len(shown)
    named = ", ".join(f"`{column.name}` ({column.kind})" for column in shown)
    more = f" and {rest} more" if rest else ""
    classes = ", ".join(f"`{name}`" for name in signature.classes)
    answers = f"{classes}, each with its probability" if classes else "the prediction"
    return f"**Columns in:** {named}{more}. `None` stands for a missing value. **Out:** {answers}."
