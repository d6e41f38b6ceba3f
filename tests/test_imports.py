"""Imports run one way: ``vqvae_core`` knows nobody."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import environment

import vqvae_core

STRANGERS = {"ray", "mlflow", "optuna", "gymnasium", "ale_py", "matplotlib", "sweeps", "analysis", "atari_collect"}
# Needed only where a data set is read from the hub, from parquet files, or is the bundled digits.
ON_DEMAND = {"sklearn", "pyarrow", "huggingface_hub", "scipy", "pandas"}


def modules() -> list[str]:
    found = pkgutil.walk_packages(vqvae_core.__path__, "vqvae_core.")
    return ["vqvae_core", *(module.name for module in found if not module.name.endswith("__main__"))]


def test_no_module_of_the_core_imports_a_stranger() -> None:
    names = modules()
    assert {"vqvae_core.train", "vqvae_core.data.sources", "vqvae_core.checkpoint"} <= set(names)
    program = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    child = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    loaded = set(child.stdout.split())
    assert "torch" in loaded and not loaded & (STRANGERS | ON_DEMAND), loaded & (STRANGERS | ON_DEMAND)


def imports(path: Path) -> set[str]:
    """The packages that a file imports, also those inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found |= {name.partition(".")[0] for name in names}
    return found


@pytest.mark.parametrize(
    ("package", "strangers"),
    [
        ("vqvae_core", STRANGERS),
        ("atari_collect", {"vqvae_core", "sweeps", "analysis", "mlflow", "optuna"}),
        ("sweeps", {"analysis"}),  # it writes the tracker
        ("analysis", {"sweeps", "atari_collect", "ray", "optuna"}),  # it reads the tracker, and knows nothing else
    ],
)
def test_nor_does_one_inside_a_function(package: str, strangers: set[str]) -> None:
    paths = list((Path(vqvae_core.__file__).parents[1] / package).rglob("*.py"))
    assert paths
    for path in paths:
        assert not imports(path) & strangers, path


def test_reading_a_prepared_data_set_needs_no_torch() -> None:
    program = "import sys, vqvae_core.data; print('torch' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert child.stdout == "False\n", child.stderr
