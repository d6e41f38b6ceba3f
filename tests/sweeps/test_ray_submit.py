"""``ray up``, ``ray submit`` and ``ray job submit`` as the documentation has them, to an sshd on this machine.

The launcher file is the project's own; only what describes the machine is put in: address, ports, user, key, folder.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from benchmarks._nodes import PROGRAMS, ROOT, plain_environment, short_folder
from benchmarks._servers import free_port, wait_for

pytestmark = pytest.mark.slow

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
NEEDED = {"openssh-server": SSHD, "openssh-client": shutil.which("ssh"), "rsync": shutil.which("rsync")}
NEEDED |= {"netcat-openbsd": shutil.which("nc"), "make": shutil.which("make")}
SMALL = ["--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4", "--train.calibration_images", "64"]


@dataclass(frozen=True)
class Machine:
    """A machine that is reached by ssh: this one, with another home."""

    folder: Path
    port: int

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def key(self) -> Path:
        return self.folder / "key"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    missing = [package for package, program in NEEDED.items() if program is None]
    if missing:
        pytest.skip(f"needs the Debian packages {', '.join(missing)}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it when it is root's
    with short_folder() as folder:
        found = Machine(folder, free_port())
        found.home.mkdir()
        for name in ("host", "key"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(keygen, check=True)
        config = {
            "Port": found.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "key.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "SetEnv": f"HOME={found.home}",
            "MaxStartups": 100,
        }
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
        log = folder / "sshd.log"
        with log.open("wb") as output:
            assert SSHD is not None
            server = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=output, stderr=output
            )
        try:
            wait_for(found.port, server, log)
            install(found)
            yield found
        finally:
            server.terminate()
            server.wait()


def install(machine: Machine) -> None:
    """What `make .venv/installed-all` leaves, in no time: this environment under that name."""
    venv = machine.home / "vqsweep" / ".venv"
    venv.mkdir(parents=True)
    (venv / "bin").symlink_to(PROGRAMS)
    if (PROGRAMS.parent / "pyvenv.cfg").exists():
        (venv / "lib").symlink_to(PROGRAMS.parent / "lib")
        shutil.copy(PROGRAMS.parent / "pyvenv.cfg", venv)
    (venv / "installed-all").touch()
    # The code that was copied, not that of this environment; and nothing in the real home.
    lines = [f"export PYTHONPATH={machine.home}/vqsweep RAY_TMPDIR={machine.folder} RAY_USAGE_STATS_ENABLED=0", "cd"]
    (machine.home / ".bashrc").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def cluster(machine: Machine) -> Iterator[tuple[Path, dict[str, str], int]]:
    """The launcher's file for the machine, its user's environment, and the dashboard's port; `ray up` is done."""
    folder, dashboard = machine.folder, free_port()
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster-local.yaml").read_text())
    config["cluster_name"] = f"submit-{folder.name}"
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    config["auth"] = {
        "ssh_user": getpass.getuser(),
        "ssh_private_key": str(machine.key),
        "ssh_proxy_command": f"nc 127.0.0.1 {machine.port}",
    }
    own = f"--num-cpus=2 --dashboard-port={dashboard} --dashboard-agent-listen-port={free_port()} "
    own += f"--ray-client-server-port={free_port()} --min-worker-port=0 --max-worker-port=0 --port={free_port()}"
    for name, lines in config.items():
        if name.endswith("_commands"):
            # `ray stop` ends every Ray on a machine, and this one has others.
            lines = [line.replace("/shared", f"{folder}/shared") for line in lines if line != "ray stop"]
            config[name] = [line.replace("--port=6379", own) for line in lines]
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))

    user = folder / "user"
    (user / ".ray").mkdir(parents=True)
    (user / ".ray" / "auth_token").write_text("3" * 64)
    env = plain_environment(user, RAY_TMPDIR=str(folder))
    up = ray(env, "up", "-y", str(path), "--no-config-cache")
    assert up.returncode == 0, up.stdout + up.stderr
    yield path, env, dashboard


def ray(env: dict[str, str], *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def submit(cluster: tuple[Path, dict[str, str], int], *words: str) -> subprocess.CompletedProcess[str]:
    path, env, _ = cluster
    script = str(ROOT / "sweeps" / "beta_lr.py")
    arguments = ["--dataset", "digits", "--images", "400", *SMALL, *words]
    return ray(env, "submit", str(path), script, "--", *arguments)


def test_a_submitted_sweep_ends_with_its_ranking(cluster: tuple[Path, dict[str, str], int], machine: Machine) -> None:
    done = submit(cluster, "--trials", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    shared = machine.folder / "shared"
    for text in (
        "on the Ray cluster at ",
        "rank  trial",
        "the report's point",
        "A decoder that always answers the mean training image needs",
        "best: trial 00",
        f"checkpoints and pictures: {shared}/runs/beta_lr-digits/trials",
        f"mlflow ui --backend-store-uri sqlite:///{shared}/mlflow.db",
        "python analysis/table1.py",
    ):
        assert text in done.stdout, done.stdout
    study = optuna.load_study(study_name="beta_lr-digits", storage=f"sqlite:///{shared}/optuna.db")
    assert len(study.trials) == 3 and all(trial.state.is_finished() for trial in study.trials)
    # Its own code and images were used, and nothing was left in between.
    assert (machine.home / "vqsweep" / "sweeps" / "_launch.py").read_bytes() == (
        ROOT / "sweeps/_launch.py"
    ).read_bytes()
    assert (machine.home / "data" / "digits" / "dataset.json").exists()
    assert not (machine.home / "runs").exists() and not (machine.home / "mlflow.db").exists()
    assert (machine.home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_the_same_command_again_repeats_nothing(cluster: tuple[Path, dict[str, str], int]) -> None:
    again = submit(cluster, "--trials", "3")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "continuing: 3 trials are over" in again.stdout and " starts: " not in again.stdout


def test_a_mistake_is_one_line_and_fails(cluster: tuple[Path, dict[str, str], int]) -> None:
    wrong = submit(cluster, "--trials", "none")
    assert wrong.returncode == 1
    assert (
        "error: sweeps/beta_lr.py: argument --trials: 'none'; allowed is an integer >= 1" in wrong.stdout + wrong.stderr
    )
    assert "Traceback" not in wrong.stdout + wrong.stderr


def test_a_job_runs_the_code_that_was_sent_with_it_and_continues_the_sweep(
    cluster: tuple[Path, dict[str, str], int], tmp_path: Path
) -> None:
    _, env, dashboard = cluster
    sent = tmp_path / "project"
    for package in ("vqvae_core", "atari_collect", "sweeps"):
        shutil.copytree(ROOT / package, sent / package, ignore=shutil.ignore_patterns("__pycache__"))
    ranking = sent / "sweeps" / "_ranking.py"
    ranking.write_text(ranking.read_text().replace("A decoder that always answers", "As sent: one that always answers"))
    arguments = ["--dataset", "digits", "--images", "400", *SMALL, "--trials", "4"]
    env = {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}", "RAY_AUTH_MODE": "token"}
    job = ["job", "submit", "--working-dir", ".", "--", "python", "-m", "sweeps.beta_lr", *arguments]
    done = ray(env, *job, cwd=sent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "continuing: 3 trials are over" in done.stdout
    assert done.stdout.count(" starts: ") == 1 and "trial 003 starts: " in done.stdout
    assert "As sent: one that always answers" in done.stdout
    assert "best: trial 00" in done.stdout

    without = {name: value for name, value in env.items() if name != "RAY_AUTH_MODE"}
    refused = ray({**without, "HOME": str(tmp_path)}, "job", "list")
    assert refused.returncode != 0, "the dashboard asks for the token, too"
