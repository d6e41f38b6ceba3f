"""Table 1: the right runs, the right arithmetic, and every format parsed back."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import made_up_tracker
import pytest
from made_up_tracker import AWKWARD, CIFAR10_VAE, CIFAR10_VQVAE, COMMIT, OTHER, result

from analysis._rows import ALIKE, BEST, ONE_SEED, OTHER_IMAGES, WORSE, Row, best_of_each, remark
from analysis.published import as_json, read_results, write_results
from analysis.runs import Run
from analysis.table1 import export, main
from vqvae_core.tables import WIDTH

PROJECT = Path(__file__).parents[2]
FORMATS = ("text", "md", "csv", "latex", "json")

# The report's Table 1, and what it quotes of the original paper.
THEIRS = {
    ("cifar10", "vqvae"): (4.670, 5.852),
    ("cifar10", "vae"): (4.510, 5.681),
    ("cifar10", "vimco"): (5.140, None),
    ("mnist", "vqvae"): (None, 6.221),
    ("mnist", "vae"): (None, 5.705),
    ("mnist", "vimco"): (None, None),
    ("fashion_mnist", "vqvae"): (None, 6.228),
    ("fashion_mnist", "vae"): (None, 5.685),
    ("fashion_mnist", "vimco"): (None, None),
}

T2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # Student's t for three values, where it has a closed form

Table = Callable[..., str]


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_up_tracker.shared(tmp_path_factory.getbasetemp())


@pytest.fixture
def table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Table:
    """Run the program; gives what it printed. Nothing is published unless a test says so."""

    def run(*arguments: str) -> str:
        empty = [] if "--results" in arguments else ["--results", str(tmp_path)]
        main([*arguments, *empty])
        return capsys.readouterr().out

    return run


def rows_of(printed: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of ``--format json`` by data set and model."""
    return {(row["dataset"], row["model"]): row for row in json.loads(printed)["rows"]}


@pytest.mark.slow
def test_theirs_are_the_published_numbers_in_their_order(tracker: str, table: Table) -> None:
    rows = rows_of(table("--tracking-uri", tracker, "--format", "json"))
    assert list(rows)[:9] == list(THEIRS)
    for key, (paper, report) in THEIRS.items():
        assert rows[key]["theirs"] == {"original_paper": paper, "report": report}
    assert list(rows)[9:] == [("boxing", "vqvae"), ("boxing", "my_model")]
    assert all(rows[key]["theirs"] == {"original_paper": None, "report": None} for key in list(rows)[9:])


@pytest.mark.slow
def test_ours_is_the_best_on_valid_by_explicit_arithmetic(tracker: str, table: Table) -> None:
    rows = rows_of(table("--tracking-uri", tracker, "--format", "json"))
    for model, made in (("vqvae", CIFAR10_VQVAE), ("vae", CIFAR10_VAE)):
        ours = rows["cifar10", model]["ours"]
        values = [test for _, test in made.values()]
        mean = sum(values) / 3
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
        assert ours["value"] == pytest.approx(mean, abs=1e-12)
        assert ours["interval"] == pytest.approx(T2 * deviation / math.sqrt(3), abs=1e-12)
        assert (ours["n"], ours["seeds"], ours["values"]) == (3, [0, 1, 2], values)
        assert ours["D"] + ours["R"] == pytest.approx(mean, abs=1e-12)
        assert (ours["R"], ours["prior"], ours["rates"]) == (0.25, "unigram", {"uniform": 0.5, "unigram": 0.25})
        assert ours["eq7"] == pytest.approx(5.81)
        assert ours["images_seen"] == [2000, 2001, 2002]
        counts = {"train": 45000, "valid": 5000, "test": 10000}
        assert ours["data"] == {"from": "made up", "fingerprint": "cifar10-images", **counts}
        assert (ours["commit"], ours["sweep"], len(ours["runs"])) == ([COMMIT], "beta_lr-cifar10", 3)
        assert not {"seed", "data.root"} & set(ours["config"])
    assert not rows["cifar10", "vqvae"]["ours"]["dirty"]
    assert rows["cifar10", "vae"]["ours"]["dirty"]  # one seed of three
    for key in (("cifar10", "vimco"), ("fashion_mnist", "vqvae")):
        assert rows[key]["ours"] is None


@pytest.mark.slow
def test_further_models_priors_single_seeds_and_what_the_sweep_noted(tracker: str, table: Table) -> None:
    rows = rows_of(table("--tracking-uri", tracker, "--format", "json"))
    learned, one = rows["boxing", "vqvae"]["ours"], rows["mnist", "vqvae"]["ours"]
    assert (learned["prior"], learned["R"], learned["sweep"]) == ("learned", 0.25, AWKWARD)
    assert (one["n"], one["interval"], one["commit"]) == (1, None, [OTHER])
    assert (one["hardware"], one["command"]) == ("2 made-up cores", "python sweeps/made_up.py")
    assert learned["hardware"] is None


@pytest.mark.slow
def test_remarks_compare_the_models_of_one_data_set(tracker: str, table: Table) -> None:
    rows = rows_of(table("--tracking-uri", tracker, "--format", "json"))
    remarks = {key: row["ours"]["remark"] for key, row in rows.items() if row["ours"]}
    assert remarks == {
        ("cifar10", "vqvae"): BEST,
        ("cifar10", "vae"): ALIKE,
        ("mnist", "vqvae"): ONE_SEED,
        ("mnist", "vae"): BEST,
        ("boxing", "vqvae"): BEST,
        ("boxing", "my_model"): OTHER_IMAGES,
    }


@pytest.mark.slow
def test_valid_counts_every_complete_trial(tracker: str, table: Table) -> None:
    printed = table("--tracking-uri", tracker, "--split", "valid", "--format", "json")
    rows = rows_of(printed)
    # The untested trial, and not the stopped or failed ones; those with a broken test figure have a fine valid one.
    assert rows["cifar10", "vqvae"]["ours"]["value"] == 1.2
    assert rows["cifar10", "vae"]["ours"]["value"] == pytest.approx(5.01)
    assert json.loads(printed)["split"] == "valid"
    assert "quote the test split" in table("--tracking-uri", tracker, "--split", "valid")


@pytest.mark.slow
def test_text_fits_a_terminal_and_is_aligned(tracker: str, table: Table) -> None:
    printed = table("--tracking-uri", tracker)
    lines = printed.splitlines()
    assert max(map(len, lines[1:])) <= WIDTH
    start = next(n for n, line in enumerate(lines) if line.startswith("data set"))
    body = lines[start + 2 : start + 13]
    column = lines[start].index("report") + len("report")
    figures = [line[column - 6 : column].strip() for line in body]
    assert figures[:9] == ["-" if report is None else f"{report:.3f}" for _, report in THEIRS.values()]
    for words in (
        "5.020  ±0.050  3  4.770  0.250  unigram  best",
        ALIKE,
        "0123456*",
        "fedcba9",
        "45k",
        "not a likelihood",
        "no run yet",
        "1M",
    ):
        assert words in printed
    command = "Fashion-MNIST VQ-VAE: python sweeps/table1.py --only vqvae --dataset fashion_mnist"
    assert any(line.startswith(command) for line in lines)


@pytest.mark.slow
def test_csv_reads_back_with_all_digits(tracker: str, table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(table("--tracking-uri", tracker, "--format", "csv"))))
    by_key = {(row["dataset"], row["model"]): row for row in rows}
    expected = rows_of(table("--tracking-uri", tracker, "--format", "json"))
    assert list(by_key) == list(expected)
    for key, row in by_key.items():
        ours = expected[key]["ours"]
        assert (row["ours"] == "") == (ours is None)
        if ours:
            assert float(row["ours"]) == ours["value"]
            assert [int(seed) for seed in row["seeds"].split()] == ours["seeds"]
            assert (row["sweep"], row["dirty"], row["n"]) == (ours["sweep"], str(ours["dirty"]), str(ours["n"]))
    assert by_key["cifar10", "vimco"]["remark"] == "no run yet"
    assert by_key["boxing", "vqvae"]["sweep"] == AWKWARD


def cells(line: str) -> list[str]:
    """The cells of a row of Markdown, without its escapes."""
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.slow
def test_markdown_reads_back(tracker: str, table: Table) -> None:
    lines = table("--tracking-uri", tracker, "--format", "md").splitlines()
    tables = groupby(lines, lambda line: line.startswith("|"))
    blocks = [[cells(line) for line in block] for piped, block in tables if piped][:2]
    for header, rule, *body in blocks:
        assert all(len(row) == len(header) for row in body)
        assert all(set(mark) <= {":", "-"} for mark in rule)
    (main_head, _, *main_rows), (detail_head, _, *details) = blocks
    assert len(main_rows) == 11
    assert dict(zip(main_head, main_rows[0], strict=True))["ours"] == "5.020"
    last = dict(zip(detail_head, details[-1], strict=True))
    assert (last["sweep"], last["Equation 7, not a likelihood"]) == (AWKWARD, "5.800")
    assert last["channels"] == "256"
    assert any(line.startswith("- CIFAR10 VIMCO: ") for line in lines)


@pytest.mark.slow
def test_latex_escapes_everything_and_comments_the_rest(tracker: str, table: Table) -> None:
    printed = table("--tracking-uri", tracker, "--format", "latex")
    assert r"50\%\_of|a\&b" in printed
    assert r"5.020 & $\pm$0.050 & 3" in printed
    inside = False
    for line in printed.splitlines():
        inside = inside or line.startswith(r"\begin{tabular}")
        if not inside:
            assert not line or line.startswith("%")
        elif line.endswith(r"\\"):
            bare = re.sub(r"\\[&%$#_{}]|\$\\pm\$", "", line)
            assert bare.count("&") in (9, 10)
            assert not set(bare) & set("%$#_{}^~")
        inside = inside and not line.startswith(r"\end{tabular}")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("split", ["test", "valid"])
def test_a_missing_tracker_is_a_table_of_what_to_run(form: str, split: str, tmp_path: Path, table: Table) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    printed = table("--tracking-uri", uri, "--format", form, "--split", split)
    for dataset in ("cifar10", "mnist", "fashion_mnist"):
        assert f"python sweeps/table1.py --only vqvae --dataset {dataset}" in printed
    assert list(tmp_path.iterdir()) == []
    if form == "json":
        assert all(row["ours"] is None for row in rows_of(printed).values())
    if form in ("text", "md", "latex"):
        assert "this file does not exist" in printed and printed.count("no run yet") == 9


def test_an_empty_tracker_says_so(tmp_path: Path, table: Table) -> None:
    (tmp_path / "mlflow.db").touch()
    printed = table("--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--results", str(PROJECT / "analysis"))
    assert "The tracker holds no complete run with test figures." in printed


def test_a_remark_needs_two_intervals_on_the_same_images() -> None:
    ours = {
        ("mnist", "a", "a"): result("a", 1.0, 0.1),
        ("mnist", "b", "b"): result("b", 1.3, 0.2),
        ("mnist", "c", "c"): result("c", 1.3, 0.1999),
        ("mnist", "d", "d"): result("d", 1.3, None),
        ("mnist", "e", "e"): result("e", 1.05, 0.1, data={"fingerprint": "2"}),
        ("cifar10", "a", "a"): result("a", 0.5, 0.1),
    }
    words = [remark(ours, ("mnist", model, model)) for model in "abcde"]
    assert words == [BEST, ALIKE, WORSE, ONE_SEED, OTHER_IMAGES]
    assert remark(ours, ("cifar10", "a", "a")) == ""  # nothing to compare with
    assert remark(ours, ("mnist", "f", "f")) == ""


def made_up_run(number: int, bits: float, **params: str) -> Run:
    """A complete run of a VQ-VAE on MNIST, tested, with bounds."""
    metrics = {f"{split}/bits_per_dim": bits for split in ("valid", "test")}
    metrics |= {"test/distortion": bits - 0.25, "test/rate_unigram": 0.25, "test/rate_uniform": 0.5}
    metrics |= {f"test/bits_per_dim_s{S}": bits - S / 1000 for S in (1, 10, 50)}
    metrics |= {"test/bound_images": 256.0, "test/unigram_pixels": 1.967}
    config = {"data.name": "mnist", "model.type": "vqvae", **params}
    return Run(str(number), "", "mnist/table1", "FINISHED", number, config, {"seed": "0"}, metrics, {})


def test_rows_of_one_model_that_were_trained_differently_are_rows_of_their_own(table: Table, tmp_path: Path) -> None:
    errors = {"model.scale": "fitted", "model.likelihood": "logistic"}
    runs = [
        made_up_run(1, 2.0, **errors),
        made_up_run(2, 1.5, **{**errors, "model.likelihood": "mixture"}),
        made_up_run(3, 1.8, **errors, row="vqvae_ema"),
        made_up_run(4, 1.9, **{**errors, "model.scale": "global"}),
        made_up_run(5, 2.1),  # nothing is known of its training
        made_up_run(6, 1.7, **errors, **{"model.quantizer": "ema"}),  # of a sweep that noted no row
        made_up_run(7, 1.6, **errors, **{"model.quantizer": "frozen"}),
    ]
    ours = best_of_each(runs, {}, "test")
    assert {key[2]: found.value for key, found in ours.items()} == {
        "vqvae_mse": 2.0,
        "vqvae": 1.5,
        "vqvae_ema": 1.7,
        "vqvae_frozen_mse": 1.6,
    }
    assert ours["mnist", "vqvae", "vqvae"].bounds == pytest.approx({"s1": 1.499, "s10": 1.49, "s50": 1.45})
    assert (ours["mnist", "vqvae", "vqvae"].bound_images, ours["mnist", "vqvae", "vqvae"].unigram_pixels) == (
        256,
        1.967,
    )
    write_results(tmp_path / "made_up.json", list(ours.values()))
    arguments = ("--results", str(tmp_path), "--tracking-uri", f"sqlite:///{tmp_path / 'none.db'}")
    lines = table(*arguments).splitlines()
    for label in ("VQ-VAE mse", "VQ-VAE ema", "VQ-VAE  "):
        assert any(line.startswith(f"MNIST          {label}") for line in lines), label
    printed = table(*arguments, "--split-rates")
    assert "L_50" not in "\n".join(lines) and "L_50" in printed
    sums, bounds = (printed.partition(words)[2].splitlines() for words in ("rate by prior:", "Bounds of S samples:"))
    assert ["MNIST", "VQ-VAE", "1.250", "0.500", "1.750", "0.250", "1.500", "1.967"] in map(str.split, sums)
    assert ["MNIST", "VQ-VAE", "1.499", "1.490", "1.450", "256"] in map(str.split, bounds)
    assert all(len(line) <= WIDTH for line in printed.splitlines()[1:])


def test_a_learned_priors_row_is_its_first_stages_with_a_seed_of_each(table: Table, tmp_path: Path) -> None:
    errors = {"model.scale": "fitted", "model.likelihood": "logistic", "model.hidden": "256", "train.images": "48000"}

    def prior(number: int, seed: int, first_seed: int, **further: str) -> Run:
        first = {**errors, "model.type": "vqvae", "seed": first_seed, "out": "runs/x", "data.root": "/some/where"}
        run = made_up_run(number, 2.0 + number / 100, **{"model.type": "prior", "model.hidden": "64"}, **further)
        params = {**run.params, "model.first": f"/some/where/{number}", "seed": str(seed)}
        tags = {"seed": str(seed), "first.stage": "vqvae", "first.settings": json.dumps(first)}
        metrics = {name.replace("rate_unigram", "rate_prior"): value for name, value in run.metrics.items()}
        steps = {"test/bits_per_dim": 60000}
        return replace(run, params=params, tags=tags, metrics=metrics, steps=steps)

    row = {"row": "vqvae_mse_prior"}
    listed = best_of_each([prior(n, seed=n, first_seed=n, **row) for n in range(3)], {}, "test")
    ours = listed["mnist", "vqvae", "vqvae_mse_prior"]
    assert (ours.n, ours.seeds, ours.prior, ours.model) == (3, [0, 1, 2], "learned", "vqvae")
    assert "/some/where" not in json.dumps(as_json(ours)) and ours.row == "vqvae_mse_prior"
    assert ours.config["first.model.hidden"] == "256" and "first.seed" not in ours.config
    # Outside of Table 1 several seeds of a prior stand on one first stage, which is no replicate of another.
    swept = best_of_each([prior(0, 0, 5), prior(1, 1, 5), prior(2, 0, 6)], {}, "test")
    assert swept["mnist", "vqvae", "vqvae_mse_prior"].seeds == [0, 1]
    write_results(tmp_path / "made_up.json", [ours])
    printed = table("--published", "--results", str(tmp_path))
    line = next(line.split() for line in printed.splitlines() if line.startswith("MNIST"))
    assert line[1:3] == ["VQ-VAE", "mse+"]
    assert {"48k+60k", "256", "learned"} <= set(line)
    early = replace(ours, config={**ours.config, "first.images_seen": "16000"})  # its best checkpoint, not its last
    write_results(tmp_path / "made_up.json", [early])
    assert "16k+60k" in table("--published", "--results", str(tmp_path))


def test_an_export_keeps_a_files_rows_of_other_configurations(tmp_path: Path) -> None:
    def row(number: int, value: float, **config: str) -> Row:
        own = best_of_each([made_up_run(number, value, **config)], {}, "test").popitem()[1]
        return Row("mnist", "vqvae", "vqvae", None, None, own, "", (), None)

    file = tmp_path / "table1.json"
    export(file, [row(1, 2.0, **{"model.hidden": "256"})], "made up")
    export(file, [row(2, 1.9, **{"model.hidden": "32"})], "made up")
    export(file, [row(3, 1.8, **{"model.hidden": "32"})], "made up")
    assert [result_.value for _, result_ in read_results(tmp_path)] == [2.0, 1.8]


def test_one_data_set_alone(tracker: str, table: Table) -> None:
    rows = json.loads(table("--tracking-uri", tracker, "--dataset", "cifar10", "--format", "json"))["rows"]
    assert {row["dataset"] for row in rows} == {"cifar10"} and len(rows) >= 3
    printed = table("--published", "--dataset", "mnist", "--results", str(PROJECT / "results"))
    assert "MNIST " in printed and "Fashion" not in printed and "CIFAR10" not in printed


def test_the_readme_has_the_table_of_what_is_published(table: Table) -> None:
    printed = table("--published", "--format", "md", "--results", str(PROJECT / "results")).strip()
    assert printed.count("\n") > 2 and "| images seen |" in printed  # a title that only text breaks
    assert printed in (PROJECT / "README.md").read_text()


@pytest.mark.slow
def test_what_is_exported_is_what_is_shown_later(tracker: str, table: Table, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    file = folder / "table1.json"
    before = rows_of(table("--tracking-uri", tracker, "--format", "json"))
    table("--tracking-uri", tracker, "--export", str(file), "--hardware", "1 made-up GPU")
    (folder / "figure.json").write_text('{"kind": "figure"}')  # somebody else's
    published = {(result.dataset, result.model): result for _, result in read_results(folder)}
    assert list(published) == [key for key, row in before.items() if row["ours"]]
    for key, result_ in published.items():
        ours = before[key]["ours"]
        hardware = ours["hardware"] or "1 made-up GPU"
        del ours["remark"]
        assert as_json(result_) == {**ours, "hardware": hardware}
    for row in json.loads(file.read_text())["rows"]:
        for name in ("value", "interval", "n", "D", "R", "prior", "data", "command", "commit", "hardware", "seeds"):
            assert name in row
        assert row["value"] == pytest.approx(statistics.mean(row["values"]))
    # Shown beside a tracker that has nothing.
    elsewhere = ["--tracking-uri", f"sqlite:///{tmp_path / 'none.db'}", "--results", str(folder)]
    rows = rows_of(table(*elsewhere, "--format", "json"))
    assert rows["cifar10", "vqvae"]["ours"] is None
    assert rows["cifar10", "vqvae"]["published"][0] == {"file": "table1.json", **as_json(published["cifar10", "vqvae"])}
    assert ("boxing", "my_model") in rows
    printed = table(*elsewhere)
    assert (
        "Published in table1.json" in printed and "pub-" in printed and max(map(len, printed.splitlines()[1:])) <= WIDTH
    )
    assert not any(
        row["published"] for row in rows_of(table(*elsewhere, "--format", "json", "--split", "valid")).values()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "yaml"], "yaml"),
        (["--split", "train"], "train"),
        (["--bogus"], "--bogus"),
        (["--results", "nowhere"], "--results is nowhere"),
        (["--tracking-uri", "mlflow.db"], "allowed are sqlite"),
        (["--tracking-uri", "http://127.0.0.1:1"], "does not answer"),
        (["--export", "x.json"], "no run to publish"),
        (["--published", "--format", "csv"], "--format is csv; allowed with --published is one of text, md, latex"),
        (["--published", "--export", "x.json"], "--export is given; --published reads no tracker"),
        (["--published", "--split", "valid"], "has no published results of it"),
        (["--probe"], "has no weights of a vqvae of mnist; give --checkpoint"),
        (["--probe", "--checkpoint", "nowhere"], "--checkpoint is 'nowhere'"),
        (
            ["--dataset", "mnits"],
            "--dataset is mnits; Table 1 with sqlite:///mlflow.db has cifar10, mnist, fashion_mnist",
        ),
        (["--published", "--dataset", "mnits"], "--dataset is mnits; "),
        (["--picture", "x.jpg", "--checkpoint", "a"], "--picture is x.jpg; allowed is a name that ends in .png"),
        (["--probe", "--images", "1"], "--images is 1; allowed is an integer >= 2"),
        (["--probe", "--images", "few"], "--images: 'few'; allowed is an integer"),
        (["--probe", "--export", "x.json"], "--probe and --export are given; allowed is one of them"),
        (["reproduce", "mnist/vqvae", "--probe"], "reproduce and --probe are given; allowed is one of them"),
        (["--seed", "3"], "--seed is 3; allowed is one only with reproduce"),
        (["reproduce"], "ROW is not given"),
        (["reproduce", "mnist/none"], "ROW is 'mnist/none'; allowed is one of "),
        (["remake", "mnist/vqvae"], "remake"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and words in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_export_that_cannot_be_written_is_one_line(
    tracker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--tracking-uri", tracker, "--export", str(tmp_path / "none" / "x.json"), "--hardware", "x"])
    assert caught.value.code == 2
    assert "x.json cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_the_file_runs_as_a_script_and_imports_no_mlflow(tracker: str, tmp_path: Path) -> None:
    """From a folder of its own, without the project on the path, and without the seconds that mlflow needs."""
    script = str(PROJECT / "analysis" / "table1.py")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")
    }
    # Nothing published: what is, would be rows beside the tracker's.
    command = [sys.executable, "-X", "importtime", script, "--format", "json", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert all(row["ours"] is None for row in rows_of(done.stdout).values()) and list(tmp_path.iterdir()) == []
    environment["MLFLOW_TRACKING_URI"] = tracker
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert rows_of(done.stdout)["cifar10", "vqvae"]["ours"]["n"] == 3
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "analysis" in imported and not imported & {"mlflow", "torch", "sweeps", "ray", "optuna"}
