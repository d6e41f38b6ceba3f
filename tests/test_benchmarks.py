"""The command line that all benchmarks share."""

from __future__ import annotations

import pytest

from benchmarks._harness import parser


@pytest.mark.parametrize("given", ["0", "-3", "2.5", "few"])
def test_repeats_that_measure_nothing_are_one_line_and_status_2(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser(None).parse_args(["--repeats", given])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"--repeats: '{given}'; allowed is an integer >= 1" in said


def test_what_a_benchmark_does_not_know_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser(None).parse_args(["--bogus"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--bogus" in said


def test_repeats_can_be_chosen() -> None:
    assert parser(None).parse_args(["--repeats", "2"]).repeats == 2
