"""The journal: nothing lost, nothing twice, whatever is cut short."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import files_of_at_most

from sweeps._journal import Journal
from vqvae_core.files import is_full


def steps(journal: Journal) -> list[int]:
    return [event["step"] for _, event in journal.untold() if event["kind"] == "report"]


def test_a_step_is_noted_once_also_by_the_next_driver(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.add("report", "000", step=10, metrics={})
    assert not journal.add("report", "000", step=10, metrics={})
    assert journal.add("report", "001", step=10, metrics={})
    journal.close()
    journal = Journal(tmp_path)
    assert not journal.add("report", "000", step=10, metrics={})
    assert journal.add("report", "000", step=20, metrics={})
    assert steps(journal) == [10, 10, 20]
    journal.close()


def test_what_was_told_is_not_told_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.add("report", "000", step=step, metrics={})
    positions = [position for position, _ in journal.untold()]
    journal.told(positions[1])
    journal.close()
    journal = Journal(tmp_path)
    assert steps(journal) == [3]
    journal.close()


def test_a_line_cut_short_is_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("report", "000", step=1, metrics={})
    journal.add("report", "000", step=2, metrics={})
    journal.close()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    journal = Journal(tmp_path)
    assert journal.last_step("000") == 1
    assert journal.add("report", "000", step=2, metrics={})
    assert steps(journal) == [1, 2]
    journal.close()


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("report", "000", step=1, metrics={})
    path = tmp_path / "journal.jsonl"
    before = path.read_bytes()
    with files_of_at_most(len(before) + 20):  # as a quota
        for _ in range(2):
            with pytest.raises(OSError, match=r"journal\.jsonl") as caught:
                journal.add("report", "000", step=2, metrics={})
            assert is_full(caught.value)
            assert path.read_bytes() == before
    assert journal.add("report", "000", step=2, metrics={})
    assert steps(journal) == [1, 2]
    journal.close()


def test_a_run_ends_once_unless_it_is_started_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("start", "sweep", params={}, tags={})
    assert journal.add("end", "sweep", state="complete", tags={})
    assert not journal.add("end", "sweep", state="complete", tags={})
    journal.add("start", "sweep", params={}, tags={})
    assert journal.add("end", "sweep", state="complete", tags={})
    assert not journal.add("end", "sweep", state="complete", tags={})
    journal.close()


def test_the_same_extra_figures_are_noted_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.add("extra", "000", step=5, metrics={"test/mse": 1.0})
    journal.close()
    journal = Journal(tmp_path)
    assert not journal.add("extra", "000", step=5, metrics={"test/mse": 1.0})
    assert journal.add("extra", "000", step=5, metrics={"test/mse": 2.0})
    journal.close()
