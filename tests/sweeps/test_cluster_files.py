"""The cluster launcher file: whatever Ray's schema refuses would be found only when the first machine is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def prepared(text: str) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return config


def test_the_cluster_file_is_one_that_ray_takes() -> None:
    config = prepared((ROOT / "cluster.yaml").read_text())
    workers = config["available_node_types"]["gpu_worker"]
    assert workers["resources"]["GPU"] == 1
    assert workers["max_workers"] <= config["max_workers"]


def test_a_misspelled_key_would_be_found() -> None:
    from jsonschema import ValidationError

    with pytest.raises((ValidationError, ValueError)):
        prepared((ROOT / "cluster.yaml").read_text().replace("max_workers: 8\nidle", "max_worker: 8\nidle"))
