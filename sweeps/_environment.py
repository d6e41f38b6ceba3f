"""What Ray reads from the environment as it is imported; the package imports this before anything else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# No telemetry, no rebuilt environments, and Tune's own files and tables stay out of the way.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def _has_token() -> bool:
    """Whether this user has a token for Ray, in any of the places where Ray looks for it."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()


if "ray" not in sys.modules and _has_token():
    # A cluster that was started where a token lay wants it, and one that was not does not mind. Ray reads this as it is
    # imported, and would by itself send none. Later is too late: the cluster that Ray starts would then read another
    # word than Ray itself has read, and refuse it.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
