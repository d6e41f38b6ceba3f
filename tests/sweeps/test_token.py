"""Ray's token: sent where there is one, and a cluster that wants another says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up import environment

from atari_collect import ray_token
from benchmarks._nodes import plain_environment, ray_head, short_folder

UNSET = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without a token."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("program", "has_token", "mode"),
    [
        ("import sweeps", True, "token"),
        ("import sweeps", False, "None"),
        ("import sys; sys.modules['ray'] = sys; import sweeps", True, "None"),
        ("import atari_collect.actors", True, "token"),
    ],
    ids=["with a token", "without one", "after ray", "by the collector"],
)
def test_the_token_is_sent_only_if_ray_will_read_so(
    nothing_set: Path, program: str, has_token: bool, mode: str
) -> None:
    if has_token:
        (nothing_set / ".ray").mkdir()
        (nothing_set / ".ray" / "auth_token").write_text("0" * 64)
    program = f"import os; {program}; print(os.environ.get('RAY_AUTH_MODE'))"
    child = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert child.stdout == f"{mode}\n", child.stderr


def test_it_is_looked_for_where_ray_looks(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_token.token() is None
    home = nothing_set / ".ray" / "auth_token"
    home.parent.mkdir()
    home.write_text("at home\n")
    assert ray_token.token() == "at home"
    (nothing_set / "named").write_text("in a file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(nothing_set / "named"))
    assert ray_token.token() == "in a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "in a variable")
    assert (ray_token.token(), ray_token.place()) == ("in a variable", "RAY_AUTH_TOKEN")


def test_a_token_that_is_asked_for_and_not_there_is_named(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert ray_token.refusal("local") is None  # Ray makes one
    assert "there is none in ~/.ray/auth_token" in str(ray_token.refusal("10.0.0.1:6379"))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    assert "/nowhere/token cannot be read or is empty" in str(ray_token.refusal("local"))


def test_a_cluster_that_cannot_be_asked_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_token.refusal("127.0.0.1:1") is None
    assert ray_token.refusal("ray://127.0.0.1:10001") is None


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, Path]]:
    """The address of a cluster that wants a token, and the file with that token."""
    with short_folder() as folder:
        token = folder / "token"
        token.write_text("1" * 64)
        env = plain_environment(folder, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
        with ray_head(folder, env, "--num-cpus=2") as address:
            yield address, token


SMALL = ["--dataset", "digits", "--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4"]
SWEEP = ["sweeps/beta_lr.py", *SMALL, "--train.calibration_images", "64", "--trials", "2", "--images", "400"]
COLLECT = ["-m", "atari_collect", "--game", "Boxing", "--frames", "60", "--actors", "2", "--out", "boxing"]


def run(arguments: list[str], folder: Path, address: str, **token: str) -> subprocess.CompletedProcess[str]:
    """A program of ours, started by a user with this token in a folder of their own."""
    env = plain_environment(folder, RAY_ADDRESS=address, **token)
    words = [str(Path(env["PYTHONPATH"]) / word) if word.startswith("sweeps/") else word for word in arguments]
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("program", [SWEEP, COLLECT], ids=["sweep", "collect"])
def test_a_cluster_with_a_token_takes_who_has_it(
    program: list[str], guarded: tuple[str, Path], digits_root: Path, tmp_path: Path
) -> None:
    address, token = guarded
    (tmp_path / "data").symlink_to(digits_root)
    done = run(program, tmp_path, address, RAY_AUTH_TOKEN_PATH=str(token))
    assert done.returncode == 0, done.stderr
    if program is SWEEP:
        assert f"on the Ray cluster at {address}: 2 CPUs" in done.stdout
        assert "best: trial" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", [SWEEP, COLLECT], ids=["sweep", "collect"])
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ({}, "wants a token; put it into ~/.ray/auth_token"),
        ({"RAY_AUTH_TOKEN": "2" * 64}, "refuses the token of RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "1" * 64, "RAY_AUTH_MODE": "disabled"}, "but RAY_AUTH_MODE is 'disabled'; unset it"),
    ],
    ids=["none", "wrong", "not sent"],
)
def test_and_tells_others_why_not_in_one_line(
    program: list[str], token: dict[str, str], said: str, guarded: tuple[str, Path], digits_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(digits_root)
    done = run(program, tmp_path, guarded[0], **token)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert f"the Ray cluster at {guarded[0]} " in done.stderr and said in done.stderr
    assert done.stdout == ""
    assert not [name for name in os.listdir(tmp_path) if name != "data"]  # noqa: PTH208


@pytest.mark.slow
def test_a_cluster_without_one_takes_who_has_none(digits_root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(digits_root)
    with short_folder() as folder:
        env = plain_environment(folder, RAY_AUTH_MODE="disabled")
        with ray_head(folder, env, "--num-cpus=2") as address:
            for token in ({}, {"RAY_AUTH_TOKEN": "1" * 64}):
                done = run([*SWEEP, "--dry-run"], tmp_path, address, **token)
                assert done.returncode == 0, done.stderr
                assert f"on the Ray cluster at {address}: 2 CPUs" in done.stdout
