"""The verdicts follow from the runs: the opposite runs give the opposite answer."""

from __future__ import annotations

import importlib
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from made_up_sweep import Writer
from PIL import Image

from analysis._evidence import read_runs
from analysis._puzzles import LOST, PUZZLES
from analysis._verdicts import verdicts
from analysis.puzzles import as_json, main
from vqvae_core.intervals import interval
from vqvae_core.overrides import flatten, with_overrides
from vqvae_core.presets import PRESETS

SWEEPS = Path(__file__).parents[2] / "sweeps" / "puzzles"


def tracker(
    folder: Path,
    sweep: str,
    runs: list[tuple[str, int, dict[str, Any], dict[str, float]]],
    noted: dict[str, str] | None = None,
) -> str:
    """A tracker with one puzzle's sweep: (arm, seed, further params, metrics); no metrics = failed."""
    writer = Writer(folder)
    common = {"sweep.id": f"{sweep}-1", "mlflow.source.git.commit": "0123456789abcdef", "git.dirty": "false"}
    command = "python sweeps/puzzles/x.py --data-source /home/me/images --checkpoint /home/me/runs/mine --seeds 3"
    dataset = {"data.name": runs[0][2]["data.name"]} if "data.name" in runs[0][2] else {}
    writer.run(sweep, "FINISHED", {**common, "stage": "sweep", "command": command, **(noted or {})}, dataset)
    for arm, seed, params, metrics in runs:
        tags = {**common, "stage": "fixed", "seed": str(seed)}
        end = "FINISHED" if metrics else "FAILED"
        writer.run(f"{arm}-{seed}", end, tags, {"arm": arm, **params}, [(100, metrics)] if metrics else [])
    return writer.save("mnist/puzzle")


def said(uri: str, number: int, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is printed of one puzzle, in one line."""
    main(["--tracking-uri", uri, "--results", "/nonexistent", *arguments])
    parts = capsys.readouterr().out.split("\n\n")
    return " ".join(next(part for part in parts if part.startswith(f"{number}. ")).split())


def bits(**arms: list[float]) -> list[tuple[str, int, dict[str, Any], dict[str, float]]]:
    size = {"model.hidden": 32, "model.num_codes": 512, "train.images": 12_000, "train.lr": 3e-4}
    return [
        (arm, seed, size, {"valid/bits_per_dim": value, "valid/perplexity": 40.0})
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]


OTHERS = {"none_linear": [2.5] * 3, "none_kmeans": [2.5] * 3, "none_softmax": [1.7] * 3}


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ([2.5, 2.6, 2.55], "No: without it the model is better"),
        ([2.9, 3.0, 2.95], "Yes: without it the model is worse"),
        ([2.5, 2.9, 2.71], "Not that these seeds could tell"),
    ],
)
def test_batch_norm(without: list[float], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    normal = [2.7, 2.72, 2.71]
    uri = tracker(tmp_path, "puzzle_batch_norm", bits(batch_norm=normal, none=without, **OTHERS))
    printed = said(uri, 1, capsys)
    gaps = [a - b for a, b in zip(without, normal, strict=True)]
    assert words in printed
    assert f"{statistics.mean(gaps):+.4f} ± {interval(gaps):.4f} (n = 3 seeds)" in printed
    assert "overturned by: runs at 256 channels" in printed and "commit 0123456789" in printed
    assert "scale: MNIST, 32 channels (the report: 256), 12,000 images seen, 3 seeds" in printed
    # The command that was typed, without where its maker kept things.
    assert "again: python sweeps/puzzles/x.py --data-source DIR --checkpoint mine --seeds 3" in printed


def codebook_runs(frozen: list[float]) -> list[tuple[str, int, dict[str, Any], dict[str, float]]]:
    arms = {"trained": [2.5, 2.52, 2.51], "frozen": frozen, "frozen_normal": frozen, "ema_kmeans": [2.4, 2.42, 2.41]}
    return bits(**{f"{arm}_d{dim}": values for arm, values in arms.items() for dim in (8, 256)})


@pytest.mark.parametrize(
    ("frozen", "words"),
    [
        ([2.6, 2.61, 2.63], "at D 8 worse than one trained from the same start and worse than one of moving averages"),
        ([2.3, 2.31, 2.33], "at D 8 better than one trained from the same start and better than one of moving"),
        ([2.1, 2.51, 2.9], "at D 8 not separable from one trained from the same start and not separable from one of"),
    ],
)
def test_frozen_codebook(frozen: list[float], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(tracker(tmp_path, "puzzle_frozen_codebook", codebook_runs(frozen)), 2, capsys)
    gaps = [a - b for a, b in zip(frozen, [2.5, 2.52, 2.51], strict=True)]
    assert words in printed
    assert f"D 256: frozen U(-1/K, 1/K) minus trained from the same start: {statistics.mean(gaps):+.4f}" in printed


def beta_runs(diverged: int, rise: float = 0.0) -> list[tuple[str, int, dict[str, Any], dict[str, float]]]:
    params = {"train.images": 162_000, "model.hidden": 32}
    runs: list[tuple[str, int, dict[str, Any], dict[str, float]]] = []
    for lr in ("0.0003", "0.001"):
        for beta in ("0.25", "1.0"):
            for seed in range(3):
                gone = beta == "0.25" and lr == "0.001" and seed < diverged
                metrics = {"valid/bits_per_dim": 4.2 + seed / 100 + rise, "valid/latent_rms": 0.8}
                runs.append((f"beta_{beta}_lr_{lr}", seed, params, {} if gone else metrics))
    return runs


@pytest.mark.parametrize(
    ("diverged", "words"),
    [(0, "none of 6 runs at beta 0.25 diverged in 120 epochs (so fewer than 39% do"), (1, "It does: 1 of 6 runs")],
)
def test_a_failed_run_is_a_diverged_one(
    diverged: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in said(tracker(tmp_path, "puzzle_beta", beta_runs(diverged)), 3, capsys)


def label_runs(moved: float, untrained: float) -> list[tuple[str, int, dict[str, Any], dict[str, float]]]:
    rows = {"row_0/moved": 0.1, "row_0/gradient": 9.0, "row_1/moved": moved, "row_1/gradient": moved}
    size: dict[str, Any] = {"maps": 256, "images_seen": 1000}
    for stage, model, changed in (("first", "vqvae", {"model.hidden": 64}), ("trained", "prior", {"model.layers": 4})):
        config = flatten(with_overrides(PRESETS[f"boxing_{model}"](), {**changed, "data.root": "/home/me/data"}))
        size |= {f"{stage}.{name}": value for name, value in config.items()}
    cost = [("untrained", seed, size, {"bits_per_code": untrained + seed}) for seed in range(3)]
    return [("training", 0, size, rows), ("none", 0, size, {"bits_per_code": 0.3}), *cost]


@pytest.mark.parametrize(
    ("moved", "untrained", "words"),
    [(0.0, 1.0, "Because the label 1 was in no"), (0.1, 1.0, "Not because of an"), (0.0, 0.2, "Not because of an")],
)
def test_unseen_label(
    moved: float, untrained: float, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = said(tracker(tmp_path, "puzzle_unseen_label", label_runs(moved, untrained)), 4, capsys)
    assert words in printed
    # What was looked at has to be trained first: the VQ-VAE, then the prior on it.
    first, second = "python -m vqvae_core boxing_vqvae --model.hidden 64", "boxing_prior --model.layers 4 --seed 0"
    assert 0 < printed.index(first) < printed.index(second) < printed.index("again: ")
    assert "/home/me" not in printed


def hierarchy_runs(**lost: list[float]) -> list[tuple[str, int, dict[str, Any], dict[str, float]]]:
    size: dict[str, Any] = {"data.name": "boxing44", "train.images": 8000, "train.batch_size": 16}
    others = {"information": 20.0, "information_most": 27.0, "perplexity": 30.0, "first_foreground_error": 0.1}
    return [
        (arm, seed, size, {f"valid/{name}": value for name, value in others.items()} | {LOST: left})
        for arm, own in lost.items()
        for seed, left in enumerate(own)
    ]


def test_three_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each change is compared with the setting that it was made to, seed by seed."""
    report = [0.8, 0.82, 0.79]
    same, less, more = report, [x - 0.3 - s / 100 for s, x in enumerate(report)], [x + 0.1 for x in report]
    more[0] += 0.001
    first = flatten(with_overrides(PRESETS["boxing_vqvae"](), {"model.hidden": 64, "data.name": "boxing44"}))
    source = {"game": "Boxing", "frames": 10_000, "height": 44, "width": 44, "seed": 0, "frame_skip": 4}
    source |= {"stickiness": 0.25, "policy": "random", "kernel": "area"}
    tags = {
        "first.settings": json.dumps({**first, "data.root": "/home/me/data", "out": "runs/boxing44_vqvae"}),
        "data.collected": json.dumps(source),
    }
    runs = hierarchy_runs(report=report, alive=same, rate=same, cells=less, positions=more, decoder=same, rare=less)
    printed = said(tracker(tmp_path, "puzzle_three_codes", runs, tags), 5, capsys)
    assert (
        "For want of place, not of rate. What keeps more of them, alone: as many codes, each of a cell and heard "
        "there; a loss that weighs rare codes more. What keeps less: three codes of weighed positions and not of their "
        "mean. What these seeds cannot tell from no change: codebooks kept alive; twelve times as many codes of the "
        "whole map; a decoder twice as wide."
    ) in printed
    gaps = [a - b for a, b in zip(less, same, strict=True)]
    assert (
        f"and heard there: {statistics.mean(gaps):+.3f} ± {interval(gaps):.3f} (n = 3 seeds, rate -> cells)" in printed
    )
    # The frames and the first stage are made first.
    collect = "python -m atari_collect --game Boxing --frames 10000 --size 44 --out data/boxing44"
    train = (
        "python -m vqvae_core cifar10_vqvae --data.name boxing44 --model.hidden 64 --seed 0 --out runs/boxing44_vqvae"
    )
    assert 0 < printed.index(collect) < printed.index(train) < printed.index("again: ")
    assert "/home/me" not in printed


def definition_runs(upside_down: bool) -> list[tuple[str, int, dict[str, Any], dict[str, float]]]:
    names = ("sigma_1", "best_sigma", "gaussian_mass", "logistic_mass")
    runs = []
    for place, arm in enumerate(("the model", "the model, blurred", "a grey image")):
        metrics = {f"bits/{name}": 4.0 + place for name in names} | {"mse": 0.1, "rate": 0.2}
        metrics |= {f"bits/{name}_more{end}": 0.01 for name in ("eq7", "logistic_mass") for end in ("", "_half")}
        metrics["bits/eq7"] = 6.0 - place if upside_down else 6.0 + place
        runs.append((arm, 0, {"test_images": 10_000, "images_seen": 5000}, metrics))
    return runs


@pytest.mark.parametrize(("upside_down", "words"), [(True, "Equation 7 is no likelihood"), (False, "do not order")])
def test_definitions(upside_down: bool, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in said(tracker(tmp_path, "puzzle_definitions", definition_runs(upside_down)), 7, capsys)


def test_definitions_on_two_data_sets_are_one_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the newest sweep, with the other data set's beside it; an older one of the same data set is not read."""
    writer = Writer(tmp_path)
    for number, (dataset, images) in enumerate((("cifar10", 7), ("cifar10", 500), ("mnist", 10_000))):
        tags = {
            "sweep.id": f"{number}",
            "command": f"python sweeps/puzzles/definitions.py --checkpoint {dataset}_vqvae",
        }
        writer.run("puzzle_definitions", "FINISHED", {**tags, "stage": "sweep"}, {"data.name": dataset})
        for arm, seed, params, metrics in definition_runs(dataset == "mnist"):
            own = {**params, "arm": arm, "data.name": dataset, "test_images": images}
            writer.run(arm, "FINISHED", {**tags, "stage": "fixed", "seed": str(seed)}, own, [(0, metrics)])
    printed = said(writer.save(), 7, capsys)
    assert "Equation 7 is no likelihood" in printed
    assert "CIFAR10, Equation 7 as printed: blurred minus model +0.0100 ± 0.0100" in printed
    assert "(n = 500 images)" in printed and "(n = 7 images)" not in printed
    assert "one model of MNIST" in printed and "and on one of CIFAR10" in printed
    first = "first: python sweeps/puzzles/definitions.py --checkpoint cifar10_vqvae"
    assert (
        0 < printed.index(first) < printed.index("again: python sweeps/puzzles/definitions.py --checkpoint mnist_vqvae")
    )


def test_verdicts_are_published_and_read_without_a_tracker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is exported is printed again where the tracker has nothing; other verdicts in the file are kept."""
    folder = tmp_path / "results"
    folder.mkdir()
    for name, runs in (("puzzle_unseen_label", label_runs(0.0, 1.0)), ("puzzle_beta", beta_runs(0))):
        (tmp_path / name).mkdir()
        uri = tracker(tmp_path / name, name, runs)
        main(["--tracking-uri", uri, "--results", str(folder), "--export", str(folder / "puzzles.json")])
    content = json.loads((folder / "puzzles.json").read_text())
    assert [entry["number"] for entry in content["puzzles"]] == [3, 4]
    assert all(entry["command"].startswith("python sweeps/puzzles/") for entry in content["puzzles"])
    assert all(entry["scale"] and entry["overturned_by"] for entry in content["puzzles"])
    capsys.readouterr()
    nothing = f"sqlite:///{tmp_path}/none.db"
    main(["--tracking-uri", nothing, "--results", str(folder), "--pictures", str(tmp_path / "drawn")])
    printed = capsys.readouterr().out
    assert "Because the label 1 was in no training frame" in printed and "from results/" in printed
    assert printed.count("no runs yet; these decide it: python sweeps/puzzles/") == 6
    for number in (3, 4):
        with Image.open(tmp_path / "drawn" / f"puzzle-{number}.png") as picture:
            picture.verify()
        assert (tmp_path / "drawn" / f"puzzle-{number}.csv").read_text().count("\n") > 3


def test_published_verdicts_are_what_their_published_runs_give() -> None:
    """No word or figure of them is anybody's own: the runs are published beside them."""
    results = SWEEPS.parents[1] / "results"
    published = {entry["number"]: entry for entry in json.loads((results / "puzzles.json").read_text())["puzzles"]}
    again = verdicts(read_runs(results / "puzzle_runs.json.gz"), PUZZLES)
    assert set(again) == {2, 5, 6, 7}
    for number, verdict in again.items():
        assert as_json(verdict) == published[number]


@pytest.mark.parametrize("number", [1, 3])
def test_published_words_are_those_of_the_code(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the runs themselves are no longer at hand: from the figures that were published of them."""
    results = SWEEPS.parents[1] / "results"
    entries = json.loads((results / "puzzles.json").read_text())["puzzles"]
    entry = next(entry for entry in entries if entry["number"] == number)
    size = {"model.hidden": 32, "train.images": 12_000 if number == 1 else 162_000}
    rms = {
        beta: [float(f) for f in re.findall(rf"([\d.]+) at beta {beta}", " ".join(entry["evidence"]))]
        for beta in ("0.25", "1")
    }
    rise = re.search(r"at most ([\d.]+) bits", " ".join(entry["evidence"]))
    writer = Writer(tmp_path)
    common = {"sweep.id": "x", "mlflow.source.git.commit": entry["commit"], "git.dirty": "false"}
    sweep = PUZZLES[number - 1].sweep
    writer.run(
        sweep, "FINISHED", {**common, "stage": "sweep", "command": entry["command"]}, {"data.name": entry["data"]}
    )
    for arm, own in entry["values"].items():
        for seed, value in enumerate(own):
            metrics = {"valid/bits_per_dim": value}
            if number == 3:
                metrics["valid/latent_rms"] = rms["0.25" if "0.25" in arm else "1"]["0.001" in arm]
            low = {**metrics, "valid/bits_per_dim": value - (float(rise[1]) if rise and seed == 0 else 0)}
            tags = {**common, "stage": "fixed", "seed": str(seed)}
            params = {"arm": arm, "data.name": entry["data"], **size}
            writer.run(f"{arm}-{seed}", "FINISHED", tags, params, [(1, low), (2, metrics)])
    file = tmp_path / "puzzles.json"
    main(["--tracking-uri", writer.save(f"{entry['data']}/puzzle"), "--results", "/nonexistent", "--export", str(file)])
    made = json.loads(file.read_text())["puzzles"][0]
    assert {name: made[name] for name in made if name not in ("hardware", "runs")} == {
        name: entry[name] for name in entry if name not in ("hardware", "runs")
    }


def test_the_page_in_docs_is_made_from_the_published_verdicts(tmp_path: Path) -> None:
    project = SWEEPS.parents[1]
    main(["--tracking-uri", f"sqlite:///{tmp_path}/none.db", "--page", str(tmp_path / "puzzles.md")])
    text = (project / "docs" / "puzzles.md").read_text()
    assert (tmp_path / "puzzles.md").read_text() == text
    pictures = re.findall(r"\]\((\.\./results/[^)]+)\)", text)
    assert len(pictures) >= 8 and all((project / "docs" / picture).exists() for picture in pictures)


def test_half_a_sweep_is_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = tracker(tmp_path, "puzzle_batch_norm", bits(none=[2.5]))
    assert "no runs yet" in said(uri, 1, capsys)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "puzzles.json").write_text("{}")
    nothing = f"sqlite:///{tmp_path}/none.db"
    for arguments, words in (
        (["--results", str(tmp_path)], "is no file of published verdicts"),
        (["--export", str(tmp_path / "x.json"), "--results", "/nonexistent"], "there is no verdict to publish"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["--tracking-uri", nothing, *arguments])
        error = capsys.readouterr().err
        assert caught.value.code == 2 and error.count("\n") == 1 and words in error


def test_every_puzzle_has_its_file_and_says_what_it_asks() -> None:
    assert [puzzle.number for puzzle in PUZZLES] == list(range(1, 9))
    for puzzle in PUZZLES:
        path = SWEEPS.parents[1] / puzzle.program.split()[1]
        module = importlib.import_module(f"sweeps.puzzles.{path.stem}")
        words = module.__doc__ or ""
        assert words.startswith(f"Puzzle {puzzle.number}: ")
        for heading in ("Run: ", "Asked: ", "Guess: ", "Scale: "):
            assert f"\n{heading}" in words
        source = path.read_text()
        assert puzzle.sweep in source
