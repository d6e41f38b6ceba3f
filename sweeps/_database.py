"""MLflow's own file: there whole, or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from vqvae_core.files import flush


def make_database(path: Path) -> None:
    """An empty tracker as an sqlite file, unless there is one.

    MLflow makes its tables in dozens of steps, which take seconds; a file that was left between two of them it can
    neither use nor repair. So they are made under another name.
    """
    from mlflow import MlflowClient

    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        MlflowClient(f"sqlite:///{temporary}").search_experiments()
        flush(temporary)
        try:
            os.link(temporary, path)  # which never takes the place of another sweep's, made meanwhile
        except OSError:
            if not path.exists():  # a disk without links
                os.replace(temporary, path)  # noqa: PTH105
    finally:
        temporary.unlink(missing_ok=True)
