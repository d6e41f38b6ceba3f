"""``python -m sweeps doctor``: finds what is wrong, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps import _doctor
from sweeps.__main__ import main
from sweeps._doctor_stores import check_storage, check_tracker


def examined(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and findings."""
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--json", *flags])
    return int(left.value.code or 0), json.loads(capsys.readouterr().out)["findings"]


def problems(findings: list[dict[str, Any]]) -> list[str]:
    return [f"{finding['about']}: {finding['text']}" for finding in findings if finding["level"] == "problem"]


@pytest.fixture
def folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to sweep in, nothing of Ray's token set."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("VQSWEEP_DATA", "VQSWEEP_RUNS", "VQSWEEP_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(workplace))
    return workplace


def test_a_good_place_has_no_problem_and_is_left_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    status, findings = examined(capsys)
    assert (status, problems(findings)) == (0, [])
    assert sorted(folder.rglob("*")) == before
    about = {finding["about"] for finding in findings}
    assert about >= {
        "python",
        "packages",
        "gpu",
        "memory",
        "disk",
        "limits",
        "tracker",
        "study",
        "data",
        "ray",
        "ports",
    }
    assert any("digits (1,797 images)" in finding["text"] for finding in findings)


def test_lines_say_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SystemExit, match="1"):
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    number = next(n for n, line in enumerate(lines) if "127.0.0.1:1, where no Ray cluster answers" in line)
    assert lines[number].startswith("problem  ray ")
    assert lines[number + 1].strip() == "-> start it, or unset RAY_ADDRESS"
    assert lines[-1].startswith("1 problems, ")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RAY_AUTH_MODE", "banana", "RAY_AUTH_MODE is 'banana'; allowed are token and disabled"),
        ("RAY_TMPDIR", "/tmp/" + "long" * 20, "is too long for Ray's sockets"),
        ("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db", "is no place to write"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1", "does not answer"),
        ("VQSWEEP_STORAGE", "sqlite:////nowhere/optuna.db", "is no place to write"),
    ],
)
def test_what_is_wrong_is_a_problem(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(_doctor, "versions", lambda: iter(()))  # slow, and examined elsewhere
    status, findings = examined(capsys)
    assert status == 1 and any(said in text for text in problems(findings)), findings


def test_a_token_that_others_can_read_is_a_warning_and_never_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = folder / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret" * 10)
    token.chmod(0o644)
    _, findings = examined(capsys)
    (warning,) = [f for f in findings if f["about"] == "ray" and f["level"] == "warning"]
    assert warning["advice"] == f"chmod 600 {token}"
    assert "secret" not in json.dumps(findings)


def test_packages_are_held_against_what_the_project_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=1", "torch>=99", "nosuchpackage>=1; extra == 'sweep'", "nosuchtool>=1; extra == 'dev'"]
    monkeypatch.setattr(_doctor.metadata, "requires", lambda name: wanted)
    said = [(f.level, f.text, f.advice) for f in _doctor.versions()]
    assert ("problem", "not installed: nosuchpackage", "pip install 'vqsweep[sweep]'") in said
    assert any(level == "problem" and "; allowed is >=99" in text for level, text, _ in said)
    assert "nosuchtool" not in str(said)


def test_a_damaged_data_set_is_a_problem(folder: Path, digits_root: Path) -> None:
    root = folder / "mine"
    shutil.copytree(digits_root / "digits", root / "digits")
    (root / "digits" / "dataset.json").write_text("{}")
    levels = [finding.level for finding in _doctor.data_sets(root)]
    assert "problem" in levels


def test_a_study_storage_is_tried_without_changing_a_byte(folder: Path) -> None:
    path = folder / "optuna.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="mine")
    before = path.read_bytes()
    assert list(check_storage(f"sqlite:///{path}")) == [
        ("ok", f"sqlite:///{path} can be written; it has 1 studies", "")
    ]
    assert path.read_bytes() == before
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ((level, text, _),) = check_storage(f"sqlite:///{path}")
    assert level == "problem" and "database is locked" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_so_is_a_tracker(tracked: Path) -> None:
    path = tracked / "mlflow.db"
    before = path.read_bytes()
    ((level, text, _),) = check_tracker(f"sqlite:///{path}")
    assert (level, text) == ("ok", f"sqlite:///{path} can be written; it has 1 experiments")
    assert path.read_bytes() == before
