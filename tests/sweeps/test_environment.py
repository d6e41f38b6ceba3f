"""Ray's token: sent where there is one, unless Ray has made up its mind already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_up import environment


@pytest.mark.parametrize(
    ("before", "token", "mode"),
    [("", True, "token"), ("", False, "None"), ("sys.modules['ray'] = sys;", True, "None")],
    ids=["with a token", "without one", "after ray"],
)
def test_the_token_is_sent_only_if_ray_will_read_so(tmp_path: Path, before: str, token: bool, mode: str) -> None:
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    program = f"import os, sys; {before} import sweeps; print(os.environ.get('RAY_AUTH_MODE'))"
    unset = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    env = {name: value for name, value in environment().items() if name not in unset} | {"HOME": str(tmp_path)}
    child = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert child.stdout == f"{mode}\n", child.stderr
