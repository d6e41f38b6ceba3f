"""One sweep on two nodes, the second of which has a disk of its own for images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from benchmarks._nodes import ROOT, plain_environment, ray_head, ray_node, short_folder

pytestmark = pytest.mark.slow

SMALL = ["--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4", "--train.calibration_images", "64"]
# A command with an empty disk in place of a folder, which nobody else sees.
OWN_DISK = 'mount -t tmpfs none "$0" && exec "$@"'


def with_own_disk(folder: Path) -> list[str]:
    """Words before a command; skips where the system does not allow it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs the Debian package util-linux")
    words = [unshare, "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", OWN_DISK, str(folder)]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mount of one's own is allowed here: {tried.stderr.strip()}")
    return words


def test_trials_run_on_both_and_images_are_made_once_where_the_drivers_are_not_seen(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    before = with_own_disk(data)
    with short_folder() as first, short_folder() as second:
        env = plain_environment(first, RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1")
        with (
            ray_head(first, env, "--num-cpus=2") as address,
            ray_node(second, env, f"--address={address}", "--num-cpus=2", before=before) as node,
        ):
            there = Path(f"/proc/{node.pid}/root{data}/digits/dataset.json")
            arguments = ["--dataset", "digits", "--trials", "6", "--images", "1500", "--scheduler", "none", *SMALL]
            log = tmp_path / "sweep.log"
            with log.open("w") as output:
                driver = subprocess.Popen(
                    [sys.executable, str(ROOT / "sweeps" / "beta_lr.py"), *arguments],
                    cwd=tmp_path,
                    env={**env, "RAY_ADDRESS": address},
                    stdout=output,
                    stderr=output,
                )
                made = set()
                while driver.poll() is None:
                    if there.exists():
                        made.add(there.stat().st_ino)
                    time.sleep(0.1)
            printed = log.read_text()
            assert driver.returncode == 0, printed
            left = sorted(path.name for path in there.parents[1].iterdir() if not path.name.startswith(".digits.lock"))
            assert there.read_bytes() == (data / "digits" / "dataset.json").read_bytes()
    assert f"4 at once, each 1 x 1 CPU, on the Ray cluster at {address}: 4 CPUs" in printed
    assert len(made) == 1, "made once, though two trials came at once"
    assert [name for name in left if not name.startswith(".")] == ["digits"]
    study = optuna.load_study(study_name="beta_lr-digits", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
