"""Ray's token, without which some clusters let nobody in: where it lies, that it is sent, and what a refusal means.

Imports no Ray: whether Ray sends a token it decides as it is imported.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
ANSWER = 5.0  # seconds in which a cluster must answer


def place() -> str | None:
    """Where Ray will read this user's token, in its own order: a variable, a file that one names, a file at home."""
    home = Path.home() / ".ray" / "auth_token"
    if os.environ.get(TOKEN):
        return TOKEN
    return os.environ.get(TOKEN_PATH) or (str(home) if home.exists() else None)


def token() -> str | None:
    """This user's token; None when there is none, or an empty one."""
    where = place()
    if where is None or where == TOKEN:
        return os.environ.get(TOKEN) or None
    try:
        return Path(where).read_text().strip() or None
    except OSError:
        return None


def send() -> None:
    """Have Ray send the token if there is one; to be called before Ray is imported.

    A cluster that was started where a token lay wants it, and one that was not does not mind. Ray would by itself send
    none. Later is too late: the cluster that Ray starts would then read another word than Ray itself has read, and
    refuse it.
    """
    if "ray" not in sys.modules and place() is not None:
        os.environ.setdefault(MODE, "token")


def refusal(address: str) -> str | None:
    """Why the cluster at ``host:port``, or Ray itself, would refuse us; None when it would not, or cannot be asked.

    ``local`` is a Ray of our own, which makes a token where there is none. Ray would ask a cluster for twenty seconds,
    with a line on the screen for each, and then not say why it gives up.
    """
    mode, where, word = os.environ.get(MODE, ""), place(), token()
    sends = mode.lower() == "token"
    if sends and word is None and (where or address != "local"):
        there = f"{where} cannot be read or is empty" if where else "there is none in ~/.ray/auth_token"
        return f"{MODE} is 'token', but {there}; put the cluster's token there, or into {TOKEN}"
    if not re.fullmatch(r"[^/:]+:\d+", address) or not _is_refused(address, word if sends else None):
        return None
    if word is None:
        return f"the Ray cluster at {address} wants a token; put it into ~/.ray/auth_token, or into {TOKEN}"
    if not sends:
        return f"the Ray cluster at {address} wants a token, but {MODE} is {mode!r}; unset it"
    return f"the Ray cluster at {address} refuses the token of {where}; allowed is the one that it was started with"


def _is_refused(address: str, word: str | None) -> bool:
    """Whether a cluster lets nobody in who shows this token; False when that cannot be found out."""
    try:
        import grpc
    except ImportError:  # comes with ray[default]
        return False
    shown = [("authorization", f"Bearer {word}")] if word else []
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=ANSWER, metadata=shown)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False
