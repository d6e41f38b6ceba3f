"""MLflow's own pages, as a user sees what a sweep has logged: found at once, and not among noise."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from a_browser import Browser
from made_up_sweep import measured, picture

from benchmarks._servers import mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
pytest.importorskip("mlflow")

POINTS = [
    {"model.beta": 1.0, "train.lr": 3e-4},
    {"model.beta": 0.25, "train.lr": 2e-4},
    {"model.beta": 0.5, "train.lr": 1e-3},
]
BITS = [1.25, 1.5, 1.125]
CONFIG = {"data.name": "mnist", "model.type": "vqvae", "model.hidden": 8, "train.images": 2000}


@dataclass(frozen=True)
class Site:
    """A server with one sweep of three trials and a replicate."""

    address: str
    experiment: str
    runs: dict[str, str]  # name in the sweep -> MLflow's id


def write_sweep(folder: Path) -> tuple[str, dict[str, str]]:
    """A sweep as our own writing side tells it; gives the experiment's id and those of its runs."""
    from sweeps._journal import Journal
    from sweeps._tracker import Tracker

    journal = Journal(folder / "sweep")
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "mnist/beta_lr", "beta_lr-1a2b", journal)
    tracker.start()
    data = {"data.fingerprint": "0123456789abcdef", "data.from": "made up", "data.train_images": "54000"}
    tags = {"stage": "sweep", "mlflow.note.content": "Which beta?", **data}
    journal.add("start", "sweep", name="beta_lr-mnist", tags=tags, params=CONFIG)
    (folder / "reconstructions.png").write_bytes(picture())
    for number, (point, bits) in enumerate(zip(POINTS, BITS, strict=True)):
        run = f"{number:03d}"
        tags = {"stage": "search", "seed": "0", "mlflow.note.content": f"beta {point['model.beta']}", **data}
        config = {**CONFIG, **point}
        journal.add("start", run, name=run, parent="sweep", tags=tags, params={**point, **config}, config=config)
        for step in (1000, 2000):
            metrics = {"train/loss": 0.1 * number, **measured(bits + (2000 - step) / 1000, step / 10)}
            journal.add("report", run, step=step, metrics=metrics)
        journal.add("artifact", run, path=str(folder / "reconstructions.png"))
        journal.add("end", run, state="complete", tags={"status.reason": "trained on all 2,000 images"})
    tags = {"stage": "confirm", "seed": "1", **data}
    journal.add("start", "002-seed-1", name="002-seed-1", parent="002", tags=tags, params=CONFIG)
    journal.add("end", "002-seed-1", state="complete", tags={"status.reason": "trained on all 2,000 images"})
    journal.add("end", "sweep", state="complete", tags={"best.trial": "002"})
    assert tracker.close() == 0 and not tracker.refused
    journal.close()
    return tracker._experiment_id, {
        run: tracker.run_id(run) or "" for run in ("sweep", "000", "001", "002", "002-seed-1")
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The sweep behind a real ``mlflow server`` on a free port."""
    folder = tmp_path_factory.mktemp("site")
    experiment, runs = write_sweep(folder)
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder / "artifacts", os.environ) as address:
        yield Site(address, experiment, runs)
    shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], Any], what: str, patience: float = 90) -> Any:
    """Wait until something is so."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited in vain for {what}")


def words_of(browser: Browser) -> str:
    return str(browser.run("return document.body.innerText"))


def show(browser: Browser, address: str, *words: str) -> str:
    """Open a page and wait for words on it; gives all its words."""
    browser.open(address, 1600, 1000)
    until(lambda: all(word in words_of(browser) for word in words), f"{words} on {address}")
    return words_of(browser)


def test_the_experiment_is_in_the_list(site: Site, browser: Browser) -> None:
    show(browser, f"{site.address}/#/experiments", "mnist/beta_lr")


def rows(browser: Browser) -> list[str]:
    """Ids of the runs in the table, from top to bottom."""
    script = """return [...document.querySelectorAll(".ag-row[row-id]")]
                .map((row) => [row.getAttribute("row-id"), Number(row.getAttribute("row-index"))])"""
    found = dict(browser.run(script))
    return sorted(found, key=lambda run: found[run])


def unfold(browser: Browser, run: str) -> None:
    """Click what is before a run's name."""
    script = """const links = [...document.querySelectorAll(`.ag-row[row-id='${arguments[0]}'] a`)];
                const link = links.find((a) => a.textContent.trim());
                const button = link?.closest("[role=gridcell]").querySelector("button");
                button?.click();
                return Boolean(button)"""
    until(lambda: browser.run(script, run), "something to unfold")


def test_the_sweep_has_its_trials_under_it_and_a_trial_its_replicates(site: Site, browser: Browser) -> None:
    """Where the sweep's last line sends its user: training runs, without the pages for language models."""
    address = f"{site.address}/#/experiments/{site.experiment}/runs?workflowType=machine_learning"
    words = show(browser, address, "beta_lr-mnist", "0123456789abcdef")  # and the images that it was made on
    assert "Judges" not in words and "Playground" not in words
    assert rows(browser) == [site.runs["sweep"]]
    unfold(browser, site.runs["sweep"])
    trials = {site.runs[name] for name in ("sweep", "000", "001", "002")}
    until(lambda: set(rows(browser)) == trials, "the trials")
    unfold(browser, site.runs["002"])

    def in_place() -> bool:
        order = rows(browser)  # while rows slide apart, it may be that of a moment
        if set(order) != set(site.runs.values()):
            return False
        below = order.index(site.runs["002"]) + 1
        return order[0] == site.runs["sweep"] and order.index(site.runs["002-seed-1"]) == below

    until(in_place, "the replicate under its trial")


def test_three_trials_side_by_side_show_their_bits_and_the_parts(site: Site, browser: Browser) -> None:
    """Compare, as its button opens it: the plot is of bits/dim over what was swept, without choosing anything."""
    runs = quote(json.dumps([site.runs[name] for name in ("000", "001", "002")]))
    address = f"{site.address}/#/compare-runs?runs={runs}&experiments={quote(json.dumps([site.experiment]))}"
    words = show(browser, address, "Comparing 3 Runs", "valid/distortion", "valid/rate_unigram")
    plot = until(lambda: browser.all(".js-plotly-plot"), "the plot")[0]
    until(lambda: "valid/bits_per_dim" in plot.text, "bits/dim in the plot")
    assert "train.lr" in plot.text and "model.beta" in plot.text and "train/loss" not in plot.text
    lines = words.splitlines()
    metrics = lines[lines.index("Metrics", lines.index("Parameters")) :]
    shown = " ".join(metrics)
    for bits in BITS:
        assert f"{bits:g}" in shown and f"{bits - 0.25:g}" in shown  # the sum and its distortion
    assert len([line for line in metrics[:40] if line.startswith(("valid/", "train/", "test/"))]) <= 20


def test_a_trial_says_what_it_was_and_shows_its_picture(site: Site, browser: Browser) -> None:
    run = site.runs["002"]
    page = f"{site.address}/#/experiments/{site.experiment}/runs/{run}"
    words = show(browser, page, "valid/bits_per_dim", "beta 0.5", "beta_lr-mnist")  # and whose trial it is
    # The first parameters are those that were swept.
    parameters = words[words.index("Parameters (") :].split()
    assert parameters.index("train.lr") < parameters.index("data.name")
    browser.open(f"{page}/artifacts/reconstructions.png", 1600, 1000)
    image = """const shown = [...document.images].filter((i) => i.naturalWidth === 8 && i.naturalHeight === 6);
               return shown.length || document.querySelectorAll(".js-plotly-plot image").length"""
    until(lambda: browser.run(image), "the picture")
