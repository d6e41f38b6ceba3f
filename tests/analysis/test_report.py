"""The page of a sweep: whole, readable by everyone, asking nobody, and right."""

from __future__ import annotations

import base64
import csv
import io
import re
import sqlite3
import statistics
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from made_up_sweep import Writer, write_sweep

from analysis.report import main, render
from vqvae_core.intervals import interval

pytest.importorskip("jinja2")
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Every element with its attributes, and the text of the whole."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.captions = 0
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "caption":
            assert self.open[-1] == "table"
            self.captions += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, *tags: str) -> Iterator[dict[str, str]]:
        return (attributes for tag, attributes in self.elements if tag in tags)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def page(uri: str) -> Page:
    return Page(render(uri, "made-up"))


def test_it_asks_nobody_for_anything(page: Page, uri: str) -> None:
    for attributes in page.all(*{tag for tag, _ in page.elements}):
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert re.match(r"(data:|#|$)", attributes.get(name, "")), attributes
    text = render(uri, "made-up")
    assert "url(" not in text and "@import" not in text and "fetch(" not in text
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_it_can_be_read_without_eyes(page: Page) -> None:
    assert next(page.all("html"))["lang"] == "en"
    assert len(list(page.all("main"))) == len(list(page.all("h1"))) == 1
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert page.captions == len(list(page.all("table"))) > 5
    assert all(image["alt"] for image in page.all("img"))
    drawings = list(page.all("svg"))
    assert len(drawings) >= 12
    named = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert all(drawing["role"] == "img" and drawing["aria-labelledby"] for drawing in drawings)
    assert set(named) <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    links = {a["href"] for a in page.all("a") if a["href"].startswith("#")}
    assert {link[1:] for link in links} <= set(ids)
    assert all(a.get("tabindex") == "0" for a in page.all("div") if a.get("class") == "scroll")


def test_the_figures_are_those_of_the_tracker(page: Page, uri: str) -> None:
    """The ranking and the winner's means against the database, asked by hand."""
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    query = """SELECT r.name, m.value FROM runs r JOIN latest_metrics m USING (run_uuid) JOIN tags t USING (run_uuid)
               WHERE m.key = ? AND t.key = 'stage' AND t.value = ? AND r.status = 'FINISHED' ORDER BY m.value"""
    ranked = database.execute(query, ["valid/bits_per_dim", "search"]).fetchall()
    best, value = ranked[0]
    seeds = [v for n, v in database.execute(query, ["valid/bits_per_dim", "confirm"]) if n.startswith(best)]
    tested = [v for _, v in database.execute(query, ["test/bits_per_dim", "search"])]
    tested += [v for n, v in database.execute(query, ["test/bits_per_dim", "confirm"]) if n.startswith(best)]
    database.close()
    assert len(seeds) == 2 and len(tested) == 3
    for values in ([value, *seeds], tested):
        assert f"{statistics.mean(values):.4f} ± {interval(values):.4f} bits/dim (mean of 3 seeds" in page.text
    assert f"Trial {best} needs the fewest bits" in page.text
    report = dict(ranked)["000"]
    assert f"The report's point (trial 000) needs {report - value:.4f} more." in page.text
    assert "A decoder that always answers the mean training image needs 3.5000." in page.text
    rows = [a["data-trial"] for a in page.all("tr") if a.get("class", "").startswith("complete")]
    assert rows == [name for name, _ in ranked]
    states = [
        a["class"].split()[0]
        for a in page.all("tr")
        if a.get("class", "").split(" ")[0] in ("complete", "pruned", "failed")
    ]
    assert states == sorted(states, key=["complete", "pruned", "failed"].index)


def test_the_file_of_all_trials_has_all_trials(page: Page) -> None:
    link = next(a for a in page.all("a") if "download" in a)
    assert link["download"] == "made-up.csv"
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link["href"].partition(",")[2]).decode())))
    assert len({row["trial"] for row in rows}) == 24 and len(rows) == 28
    assert sum(row["seed"] != "0" for row in rows) == 4
    # Counted on a model without memory: what a real one of these settings has.
    from vqvae_core.config import VQVAEConfig
    from vqvae_core.models import build

    row = next(row for row in rows if row["end"] == "complete")
    model = build(VQVAEConfig(hidden=8, code_dim=4, num_codes=int(row["model.num_codes"])), (28, 28, 1))
    assert float(row["parameters"]) == sum(parameter.numel() for parameter in model.parameters())


def test_what_mattered_is_the_learning_rate_and_nothing_else(page: Page) -> None:
    assert re.search(r"train\.lr [5-9]\d % \d+ % it mattered", page.text)
    for name in ("model.beta", "model.num_codes"):
        assert re.search(rf"{re.escape(name)} \d+ % \d+ % cannot be told from chance", page.text)


def test_trials_that_did_not_end_are_there_with_their_reasons(page: Page) -> None:
    assert "Diverged: the loss is no longer finite at 1,000 images (lr 0.003)" in page.text
    assert "ASHA stopped it at 3,000 of 9,000 images" in page.text
    assert re.search(r"\d+ × ASHA stopped it at … of … images", page.text)


def test_pictures_cost_and_commands(page: Page) -> None:
    images = list(page.all("img"))
    assert len(images) == 4 and images[0]["alt"].endswith("test images above their reconstructions")
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert "git checkout 0123456789abcdef0123456789abcdef01234567" in page.text
    assert "python sweeps/made_up.py --trials 24" in page.text
    assert "for seed in 0 1 2; do python -m vqvae_core mnist_vqvae" in page.text
    # From the images that the trials had: without this another machine asks the hub, and may find others.
    assert "--data.source '/my images' --data.root elsewhere --seed $seed" in page.text
    assert "further seeds" in page.text and "in all" in page.text


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", "{{ 7 * 7 }}", '"><img src=x onerror=alert(1)>', "a&b"])
def test_what_runs_say_is_never_markup(tmp_path: Path, evil: str) -> None:
    text = render(write_sweep(tmp_path, 12, name=evil, question=evil, failure=evil), evil)
    page = Page(text)
    assert page.text.count(evil) >= 3
    assert not [a for a in page.all("img") if a.get("src") == "x"]
    assert len(list(page.all("script"))) == 2


def test_a_sweep_that_has_only_begun(tmp_path: Path) -> None:
    page = Page(render(write_sweep(tmp_path, 0, status="RUNNING"), "made-up"))
    assert "There is no trial yet." in page.text and "no winner yet" in page.text
    assert "still running" in page.text


def test_a_sweep_of_one_trial_and_one_whose_trials_all_failed(tmp_path: Path) -> None:
    for folder, count in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        uri = write_sweep(tmp_path / folder, count, seeds=1)
        assert "There are too few trials to tell." in Page(render(uri, None)).text
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    with database:
        database.execute("UPDATE runs SET status = 'FAILED' WHERE name != 'made-up'")
        database.execute("UPDATE tags SET value = 'failed' WHERE key = 'trial.state'")
        database.execute("DELETE FROM tags WHERE key = 'best.trial'")
        database.execute("DELETE FROM latest_metrics WHERE key LIKE 'valid/%'")
        database.execute("DELETE FROM metrics")
    database.close()
    assert "there is no winner." in Page(render(uri, None)).text


def test_measurements_have_no_winner_and_no_ranking(tmp_path: Path) -> None:
    """A puzzle that is measured and not trained: its figures, and where its verdict is."""
    writer = Writer(tmp_path)
    common = {"sweep.id": "puzzle_memory-1"}
    parent = writer.run("puzzle_memory", "FINISHED", {**common, "stage": "sweep"}, {"data.name": "made_up_vectors"})
    for name, peak in (("ours", 2.9375), ("difference", 440.84), ("matrix", 83.926)):
        own = {**common, "stage": "fixed", "trial.state": "complete", "mlflow.parentRunId": parent, "seed": "0"}
        metrics = {"memory/peak_mb": peak, "memory/one_tensor_mb": 1.5}
        writer.run(name, "FINISHED", own, {"data.name": "made_up_vectors", "arm": name}, [(0, metrics)])
    page = Page(render(writer.save(), None))
    assert "3 cases were measured, of which none is to win." in page.text
    assert "They are puzzle 6 of the report; python analysis/puzzles.py says what they show." in page.text
    assert "case memory/one_tensor_mb memory/peak_mb difference 1.5 440.84" in page.text
    assert "matrix 1.5 83.926 ours 1.5 2.9375" in page.text
    assert "The one setting that all cases had" in page.text
    for words in ("winner", "Ranking", "bits/dim", "What mattered", "What it cost", "trial"):
        assert words not in page.text
    there = {f"#{a['id']}" for a in page.all("section", "main")}
    assert {a["href"] for a in page.all("a") if a["href"].startswith("#")} <= there
    link = next(a for a in page.all("a") if "download" in a)
    rows = csv.DictReader(io.StringIO(base64.b64decode(link["href"].partition(",")[2]).decode()))
    peaks = {row["trial"]: float(row["memory/peak_mb"]) for row in rows}
    assert peaks == {"ours": 2.9375, "difference": 440.84, "matrix": 83.926}


def test_a_sweep_that_did_not_note_its_space(tmp_path: Path) -> None:
    """What was varied is then what differs."""
    page = Page(render(write_sweep(tmp_path, 24, tags={"space": ""}), None))
    names = [a["data-name"] for a in page.all("g") if "data-name" in a]
    assert set(names) == {"beta", "lr", "num_codes", "bits/dim"}


def test_ten_thousand_trials(tmp_path: Path) -> None:
    text = render(write_sweep(tmp_path, 10_000, pictures=False), "made-up")
    assert len(text) < 5e6
    page = Page(text)
    assert "9800 more trials are in the file" in page.text
    link = next(a for a in page.all("a") if "download" in a)
    assert base64.b64decode(link["href"].partition(",")[2]).count(b"\n") == 10_000 + 4


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_tracker(made: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for nothing by name, the page says how to begin; asked for a sweep, it is an error."""
    path = tmp_path / "mlflow.db"
    if made:
        sqlite3.connect(path).close()
        path.touch()
    uri = f"sqlite:///{path}"
    output = tmp_path / "report.html"
    main(["--tracking-uri", uri, "-o", str(output)])
    assert "No sweep yet" in Page(output.read_text()).text
    assert path.exists() == made
    output.unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["--tracking-uri", uri, "--sweep", "mine", "-o", str(output)])
    assert caught.value.code == 2 and not output.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--sweep is 'mine'" in error and "it holds no sweep yet" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sweep", "made-upp"], "--sweep is 'made-upp', which"),
        (["--sweep", "made-upp"], "there are made-up"),
        (["--tracking-uri", "http://127.0.0.1:9"], "does not answer"),
        (["--tracking-uri", "nonsense"], "the tracking URI is 'nonsense'"),
        (["-o", "no/such/folder/report.html"], "--output is 'no/such/folder/report.html'"),
        (["--format", "pdf"], "unrecognized arguments"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    arguments: list[str],
    words: str,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1 and words in error
    assert not list(tmp_path.iterdir())
