"""Whether tracker and study storage can be written: tried for real, and taken back."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sweeps._past import shown
from sweeps._study import open_storage
from sweeps._tracker import check, client_of

Said = tuple[str, str, str]  # level, what was found, what to do


def check_tracker(uri: str) -> Iterator[Said]:
    """An SQLite file by a transaction that is rolled back, a server by a registered model that is deleted again."""
    try:
        check(uri)
    except ValueError as error:
        yield (
            "problem",
            str(error),
            "mlflow server --backend-store-uri sqlite:///mlflow.db, or unset MLFLOW_TRACKING_URI",
        )
        return
    if uri.startswith("sqlite:///"):
        path = file_of(uri)
        if not path.exists():
            yield "ok", f"{shown(uri)} does not exist yet; the first sweep makes it", ""
            return
        if trouble := rolled_back(path):
            yield "problem", f"{path} cannot be written: {trouble}", "free the disk, the lock or the permission"
            return
    try:
        client = client_of(uri)
        count = len(client.search_experiments())
        if not uri.startswith("sqlite:///"):
            register_and_delete(uri)
    except Exception as error:  # of a driver, a proxy, an older or newer MLflow
        reason = " ".join(str(error).split())[:200]
        yield "problem", f"{shown(uri)} cannot be used: {reason}", advice_for(reason)
        return
    yield "ok", f"{shown(uri)} can be written; it has {count} experiments", ""


def register_and_delete(uri: str) -> None:
    """The one thing that MLflow deletes without a trace."""
    from mlflow import MlflowClient

    client = MlflowClient(uri, registry_uri=uri)
    name = f"vqsweep-doctor-{uuid.uuid4().hex[:8]}"
    client.create_registered_model(name)
    client.delete_registered_model(name)


def advice_for(reason: str) -> str:
    """What is to be done about the usual refusals of a tracking server."""
    if "host" in reason.lower() and "403" in reason:
        return "mlflow server --allowed-hosts HOST,HOST:PORT"
    if "schema" in reason.lower():
        return "mlflow db upgrade URI, after a copy of the database was made"
    if "No module named 'psycopg" in reason:
        return "pip install 'vqsweep[postgres]'"
    return ""


def check_storage(url: str) -> Iterator[Said]:
    """An SQLite file by a transaction that is rolled back, PostgreSQL by a table that is."""
    if url.startswith("sqlite:///"):
        path = file_of(url)
        if not path.exists():
            folder = path.parent
            if folder.is_dir() and os.access(folder, os.W_OK):
                yield "ok", f"{shown(url)} does not exist yet; the first sweep makes it", ""
            else:
                yield "problem", f"{shown(url)} is no place to write: {folder} is not a writable folder", ""
            return
        if trouble := rolled_back(path):
            yield "problem", f"{path} cannot be written: {trouble}", "free the disk, the lock or the permission"
            return
    else:
        trouble = table_rolled_back(url)
        if trouble:
            yield "problem", f"{shown(url)} cannot be used: {trouble}", advice_for(trouble)
            return
        if not has_studies(url):
            yield "ok", f"{shown(url)} can be written; it has no study yet", ""
            return
    try:
        count = len(open_storage(url).get_all_studies())
    except ValueError as error:  # made by another Optuna
        yield "problem", str(error), "optuna storage upgrade --storage URL, after a copy of the database was made"
        return
    yield "ok", f"{shown(url)} can be written; it has {count} studies", ""


def file_of(uri: str) -> Path:
    """The file of an SQLite URL."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def rolled_back(path: Path) -> str:
    """Why an SQLite database cannot be written; empty when it can. Not a byte of it is changed."""
    try:
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE vqsweep_doctor (x)")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return ""


def _engine(url: str) -> Any:
    from sqlalchemy import create_engine

    waits = {"connect_args": {"connect_timeout": 5}} if url.startswith("postgresql") else {}
    return create_engine(url, **waits)


def table_rolled_back(url: str) -> str:
    """Why a database server cannot be written; empty when it can, or when it has no transactions for tables."""
    from sqlalchemy import text

    try:
        engine = _engine(url)
        try:
            with engine.connect() as connection:
                if engine.dialect.name == "postgresql":
                    with connection.begin() as transaction:
                        connection.execute(text("CREATE TABLE vqsweep_doctor (x integer)"))
                        transaction.rollback()
        finally:
            engine.dispose()
    except Exception as error:
        return " ".join(str(error).split())[:200]
    return ""


def has_studies(url: str) -> bool:
    """Whether Optuna has made its tables there."""
    from sqlalchemy import inspect

    engine = _engine(url)
    try:
        return bool(inspect(engine).has_table("studies"))
    finally:
        engine.dispose()
