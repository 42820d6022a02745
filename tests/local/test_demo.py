"""The demo against an app that plays runs: what it says, what it checks, how it carries on, what it exits with."""

from __future__ import annotations

import io
import json
import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from local.demo import FAILED, INTERRUPTED, PASSED, RunningStack, Stack, main
from local.demo_view import curl_example
from local.journal import JOURNAL, Journal
from local.months import Patience
from tests.local.fake_app import FakeApp, Faults, stack_of

BRISK = Patience(run=10, live=10, host=0.3, look=0.001)
HASTY = Patience(run=0.3, live=0.3, host=0.3, look=0.001)


@dataclass(frozen=True, slots=True)
class Shown:
    """A demo that has run: its exit status and what it wrote."""

    status: int
    text: str

    @property
    def words(self) -> str:
        """The text without line breaks, which fall where the width has them."""
        return " ".join(self.text.split())


def show(
    app: FakeApp, data: Path, *arguments: str, stack: Stack | None = None, patience: Patience = BRISK, tty: bool = False
) -> Shown:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=tty, highlight=False, _environ={})
    argv = ["--data", str(data), *arguments]
    return Shown(main(argv, stack=stack or stack_of(app), console=console, patience=patience), output.getvalue())


@pytest.fixture(scope="module")
def two_months(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shown, FakeApp]:
    app = FakeApp()
    return show(app, tmp_path_factory.mktemp("demo") / "data", "--months", "2"), app


def test_everything_happens(two_months: tuple[Shown, FakeApp]) -> None:
    shown, app = two_months

    assert shown.status == PASSED, shown.text
    assert "Every step happened." in shown.text
    assert app.uploads == [
        "training/flight-delays/2013-01.csv",
        "training/flight-delays/2013-02-broken.csv",
        "training/flight-delays/2013-02.csv",
    ]


def test_each_month_is_told(two_months: tuple[Shown, FakeApp]) -> None:
    words = two_months[0].words

    assert "Starting clean in" in words
    assert "27,004: 26,398 to learn from, 606 in quarantine" in words
    assert "version 1, AUC 0.7100; no champion yet (6,154 rows that neither has seen)" in words
    assert "version 2, AUC 0.7200; champion version 1: 0.7000" in words
    assert "promoted: the gain is above zero with 90 % confidence" in words
    assert "version 2 in each of 2 worker processes, " in words
    assert (
        "2013-02-broken.csv is quarantined: flight-delays/2013-02-broken.csv has no column `arr_delay`; columns"
        in words
    )
    assert "frozen first model: the same model" in words


def test_the_table_and_the_addresses(two_months: tuple[Shown, FakeApp]) -> None:
    lines = two_months[0].text.splitlines()

    february = next(line.split() for line in lines if line.split()[:2] == ["February", "23,611"])
    march = next(line.split() for line in lines if line.split()[:2] == ["March", "27,902"])
    mean = next(line.split() for line in lines if line.split()[:1] == ["mean"])
    assert february[2:] == ["version", "1", "0.5763", "0.5763", "same", "model"]
    assert march[2:4] == ["version", "2"]
    assert float(march[4]) > float(march[5])
    assert float(mean[2]) == pytest.approx((float(february[4]) + float(march[4])) / 2, abs=1e-4)
    assert any(line.startswith("curl -s http://127.0.0.1:") and line.endswith("/predict \\") for line in lines)
    assert any("make run" in line for line in lines)


def test_without_a_terminal_there_are_only_plain_lines(two_months: tuple[Shown, FakeApp]) -> None:
    text = two_months[0].text

    assert not [character for character in text if not character.isprintable() and character != "\n"]
    assert max(map(len, text.splitlines())) <= 80


def test_on_a_terminal_a_bar_goes_through_the_steps(tmp_path: Path) -> None:
    shown = show(FakeApp(), tmp_path / "data", "--months", "1", tty=True, patience=Patience(look=0.15))

    assert shown.status == PASSED, shown.text
    assert "of 13: profile, 1 of 2" in shown.text
    assert "\x1b[" in shown.text


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        (Faults(registers=False), "The run of flight-delays/2013-01.csv registered no version."),
        (Faults(first_goes_live=False), "The first model did not go live"),
        (Faults(loses_rows=1), "has 27,004 rows, but its run counted 26,397 rows and 606 quarantined ones."),
        (Faults(unscored=frozenset({2})), "Of 23,611 flights of flight-delays/2013-02.csv, 23,599 were scored"),
        (Faults(refuses_infer=True), "The flights of flight-delays/2013-02.csv were not scored over HTTP."),
        (Faults(shifted=0.01), "Version 1 has AUC"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_step_that_did_not_happen_is_told_and_fails(faults: Faults, sentence: str, tmp_path: Path) -> None:
    shown = show(FakeApp(faults), tmp_path / "data", "--months", "1", patience=HASTY)

    assert shown.status == FAILED
    assert sentence in shown.words
    assert "Every step happened." not in shown.text


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        (Faults(includes_broken=True), "2013-02-broken.csv is included; it should be quarantined."),
        (Faults(stuck_worker=4102), "not every worker process answered with version 2."),
        (Faults(improves=False), "is not above the frozen model's"),
        (Faults(kept=frozenset({2})), "is not above the frozen model's"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_only_a_second_month_can_show(faults: Faults, sentence: str, tmp_path: Path) -> None:
    shown = show(FakeApp(faults), tmp_path / "data", "--months", "2", patience=HASTY)

    assert shown.status == FAILED
    assert sentence in shown.words


def test_a_run_that_never_ends_is_told_with_its_step_and_the_logs(tmp_path: Path) -> None:
    shown = show(FakeApp(Faults(never_finishes=True)), tmp_path / "data", "--months", "2", patience=HASTY)

    assert shown.status == FAILED
    assert "No finished run names flight-delays/2013-01.csv 0.3 s after the upload" in shown.words
    assert "is at step settle of run run-1" in shown.words
    assert f"The logs are in {tmp_path / 'data' / 'logs'}" in "".join(shown.text.splitlines())
    assert "flight-delays/2013-02.csv was not brought in" in shown.words


def test_a_run_that_failed_is_told_with_its_reason(tmp_path: Path) -> None:
    shown = show(FakeApp(Faults(fails=True)), tmp_path / "data", "--months", "1", patience=HASTY)

    assert shown.status == FAILED
    assert "its last run run-1 ended as failed: Activity function 'train' failed: MemoryError" in shown.words


def test_a_host_that_goes_away_is_told(tmp_path: Path) -> None:
    shown = show(FakeApp(away=10_000), tmp_path / "data", "--months", "1", patience=HASTY)

    assert shown.status == FAILED
    assert "The host has given no good answer for 0.3 s: " in shown.words
    assert "The logs are in" in shown.words


@pytest.mark.parametrize("status", [503, 500])
def test_a_host_that_is_away_for_a_moment_is_waited_for(status: int, tmp_path: Path) -> None:
    assert show(FakeApp(away=3, away_status=status), tmp_path / "data", "--months", "1").status == PASSED


def test_an_unfinished_demo_is_carried_on(tmp_path: Path) -> None:
    app, data = FakeApp(), tmp_path / "data"
    show(app, data, "--months", "2")
    replace(Journal.read(data), state="running").write(data)

    second = show(app, data, "--months", "3")

    assert second.status == PASSED, second.text
    assert "Carrying on with the unfinished demo" in second.words
    assert second.words.count("uploaded by the earlier demo; not uploaded again") == 2
    assert second.words.count("measured by the earlier demo") == 2
    assert [path[-11:] for path in app.uploads] == ["2013-01.csv", "-broken.csv", "2013-02.csv", "2013-03.csv"]


def test_ctrl_c_stops_the_stack_and_the_next_demo_waits_for_the_run_that_was_under_way(tmp_path: Path) -> None:
    class InterruptedUpload(FakeApp):
        def upload(self, path: str, data: bytes) -> None:
            super().upload(path, data)
            if len(self.uploads) == 1:
                raise KeyboardInterrupt

    app, data, events = InterruptedUpload(), tmp_path / "data", list[str]()
    stopped = show(app, data, "--months", "1", stack=stack_of(app, events))
    resumed = show(app, data, "--months", "1")

    assert stopped.status == INTERRUPTED
    assert events == ["started", "stopped"]
    assert resumed.status == PASSED, resumed.text
    assert app.uploads == ["training/flight-delays/2013-01.csv"]


def test_with_stay_the_stack_is_up_until_ctrl_c_and_the_status_is_that_of_the_demo(tmp_path: Path) -> None:
    app, events = FakeApp(), list[str]()

    class InterruptedTerminal(io.StringIO):
        def write(self, text: str) -> int:
            if "stays up until Ctrl-C" in text:
                events.append("told")
                raise KeyboardInterrupt
            return super().write(text)

    console = Console(file=InterruptedTerminal(), width=80, _environ={})
    argv = ["--data", str(tmp_path / "data"), "--months", "1", "--stay"]

    assert main(argv, stack=stack_of(app, events), console=console, patience=BRISK) == PASSED
    assert events == ["started", "told", "stopped"]


@pytest.mark.parametrize(
    ("arguments", "sentence"), [([], "the earlier demo there had finished"), (["--fresh"], "as --fresh asks")]
)
def test_a_clean_start_removes_what_was_there_and_says_so(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    Journal(state="running" if arguments else "finished").write(data)
    (data / "old").touch()

    shown = show(FakeApp(), data, "--months", "1", *arguments)

    assert shown.status == PASSED, shown.text
    assert sentence in shown.words
    assert not (data / "old").exists()
    assert Journal.read(data).state == "finished"


@pytest.mark.parametrize("arguments", [[], ["--fresh"]])
def test_a_directory_of_something_else_is_left_alone(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    events: list[str] = []
    app = FakeApp()

    shown = show(app, tmp_path, *arguments, stack=stack_of(app, events))

    assert shown.status == FAILED
    assert "holds files that are not a demo's" in shown.words
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
    assert events == []


def test_a_journal_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("{")

    assert "has no readable demo.json" in show(FakeApp(), tmp_path).words


def test_an_error_of_the_stack_is_one_message(tmp_path: Path) -> None:
    class PortTaken(Exception):
        pass

    def start(_: Path) -> AbstractContextManager[RunningStack]:
        raise PortTaken("Azurite did not start: port 10000 is taken; see logs/azurite.log")

    shown = show(FakeApp(), tmp_path / "data", stack=Stack(start=start, errors=(PortTaken,)))

    assert shown.status == FAILED
    assert "port 10000 is taken; see logs/azurite.log" in shown.words
    assert "Traceback" not in shown.text


@pytest.mark.parametrize("months", ["0", "13", "six", "-1", "1.5"])
def test_months_that_make_no_sense_are_refused(
    months: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMO_MONTHS", months)
    with pytest.raises(SystemExit) as caught:
        show(FakeApp(), tmp_path / "data")

    assert caught.value.code == 2
    assert "whole number from 1 to 12" in capsys.readouterr().err


def test_the_environment_says_how_many_months(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_MONTHS", "1")

    assert "January 2013" in show(FakeApp(), tmp_path / "data").words


def test_the_request_to_copy_is_valid_json_in_short_lines() -> None:
    record = {"carrier": "O'Hare", **{f"column_{number}": number / 7 for number in range(20)}, "gust": None}

    command = curl_example("http://127.0.0.1:7071/predict", record)

    arguments = shlex.split(command)
    assert json.loads(arguments[arguments.index("-d") + 1]) == record
    assert max(map(len, command.splitlines())) <= 80
