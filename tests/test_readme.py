"""What the README promises that a machine can check."""

from __future__ import annotations

import re
from pathlib import Path

from models.expressions import check_expressions
from models.spec import parse_spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_pipeline_in_the_readme_has_ten_lines_and_no_mistake() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(text.splitlines()) <= 10
    spec = parse_spec(text, source="README.md")
    check_expressions(spec)
    assert spec.inputs == ("plan", "seats", "monthly_spend")


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_setting_that_the_app_reads_is_explained() -> None:
    source = (ROOT / "adapters" / "settings.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"((?:RATCHET|MLFLOW)_[A-Z_]+)"', source))
    assert names
    assert sorted(name for name in names if name not in README) == []


def test_the_pipeline_that_the_documentation_builds_up_has_no_mistake() -> None:
    text = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    spec = parse_spec("\n".join(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)), source="pipelines.md")
    check_expressions(spec)
    assert spec.task == "regression"
    assert len(spec.feature_columns) == 10
