"""Second stages on made-up images: trained by ``fit``, continued, told apart from others, on codes that are cached."""

from __future__ import annotations

import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_images, without_times, write_made_up
from stages import KINDS, last, second, train_first

from vqvae_core.categorical import CategoricalModel
from vqvae_core.checkpoint import Keeper, read
from vqvae_core.codes import Codes, codes_of
from vqvae_core.config import DVAEConfig, HierarchyConfig, PriorConfig, VIMCOConfig
from vqvae_core.data import Dataset, dataset_writer, open_dataset
from vqvae_core.data.folder import NO_LABEL
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.likelihood import to_unit, unigram_log_prior, unigram_rate
from vqvae_core.metrics import evaluate_split
from vqvae_core.overrides import with_overrides
from vqvae_core.presets import PRESETS, tiny
from vqvae_core.prior import Prior
from vqvae_core.restore import restore
from vqvae_core.second_stage import find_checkpoint, open_first, pinned
from vqvae_core.task import evaluate_on
from vqvae_core.train import fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """16 x 12 images, so 4 x 3 codes."""
    return write_made_up(tmp_path_factory.mktemp("stages") / "made_up", (16, 12, 1))


@pytest.fixture(scope="module")
def first_run(images: Dataset) -> Path:
    """A run of a VQ-VAE with two codes at each position."""
    return train_first(images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_continued_second_stage_gives_an_undisturbed_ones_numbers(
    kind: str, images: Dataset, first_run: Path, tmp_path: Path
) -> None:
    experiment = second(kind, images, first_run)
    whole = list(fit(experiment, dataset=images))
    # Interrupted between two reports, saved, read by another process's eyes, continued to the end.
    cut = last(fit(experiment, dataset=images, watch=lambda seen: seen == 24))
    assert cut.images_seen == 24 and not cut.metrics
    keeper = Keeper(tmp_path)
    keeper.save(cut.state, cut.metrics, images.shape)
    found = keeper.last()
    assert found is not None
    again = last(fit(experiment, found.state(), images))
    assert without_times(again.metrics) == without_times(whole[-1].metrics)
    for name, tensor in whole[-1].state["model"].items():
        assert torch.equal(tensor, again.state["model"][name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_alone_gives_the_model_and_its_numbers(
    kind: str, images: Dataset, first_run: Path, tmp_path: Path
) -> None:
    report = last(fit(second(kind, images, first_run), dataset=images))
    Keeper(tmp_path).save(report.state, report.metrics, images.shape)
    checkpoint = read(find_checkpoint(str(tmp_path)))
    model = checkpoint.model()
    assert isinstance(model, Prior | Hierarchy) and not model.training
    assert model.first.key == open_first(str(first_run)).key
    found = evaluate_on(checkpoint.experiment, model, images, "valid")
    told = {n.removeprefix("valid/"): v for n, v in report.metrics.items() if n.startswith("valid/")}
    told.pop("latent_growth")  # of the run, not of the model
    assert found == told
    assert not any(name.startswith("first") for name in model.state_dict())


def test_the_rate_is_the_models_nats_over_the_values_of_the_images(images: Dataset, first_run: Path) -> None:
    report = last(fit(second("prior", images, first_run, **{"model.null_rate": 0.5}), dataset=images))
    model = restore(report.state, images.shape)
    assert isinstance(model, Prior)
    codes = codes_of(model.first, images, CPU)
    indices = torch.from_numpy(codes.indices("valid").astype(np.int64))
    with torch.no_grad():
        nats = model.pixelcnn.nll(indices, torch.tensor(codes.labels("valid"))).double().sum().item()
    rate = nats / math.log(2) / (len(indices) * 16 * 12)
    metrics = report.metrics
    trained_on = codes.labels("train").tolist()
    part = [(trained_on.count(c) + 1) / (len(trained_on) + codes.num_classes + 1) for c in codes.labels("valid")]
    of_class = -sum(map(math.log2, part)) / (len(indices) * 16 * 12)  # saying "none" would be the one more
    assert metrics["valid/rate_class"] == pytest.approx(of_class)
    assert metrics["valid/rate_prior"] == pytest.approx(rate + of_class, rel=1e-6)
    assert metrics["valid/bits_per_dim"] == metrics["valid/distortion"] + metrics["valid/rate_prior"]
    assert metrics["valid/bits_per_code"] == pytest.approx(rate * 16 * 12 / 24)
    assert metrics["valid/compression_uniform"] == pytest.approx(16 * 12 * 8 / (24 * math.log2(16)))
    assert metrics["valid/known_class"] == 1
    own = evaluate_split(model.first.experiment, model.first.model, images, "valid")
    assert {metrics[f"valid/{n}"] for n in ("distortion", "rate_unigram")} == {own["distortion"], own["rate_unigram"]}


def test_codes_that_cost_nothing_are_worth_any_compression(
    images: Dataset, first_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collapsed codebook is a bad model and no error: training goes on."""
    monkeypatch.setattr(Prior, "nll", lambda self, indices, labels: torch.zeros(len(indices), dtype=torch.float64))
    metrics = next(fit(second("prior", images, first_run, **{"model.null_rate": 1.0}), dataset=images)).metrics
    assert (metrics["valid/rate_prior"], metrics["valid/compression_prior"]) == (0, math.inf)


def test_a_prior_learns(images: Dataset, first_run: Path) -> None:
    longer = {"train.images": 3000, "train.eval_every": 1000, "train.lr": 5e-3, "model.dropout": 0.0}
    report = last(fit(second("prior", images, first_run, **longer), dataset=images))
    assert report.metrics["valid/rate_prior"] < report.metrics["valid/rate_unigram"]


def test_codes_are_those_that_evaluation_sees(images: Dataset, first_run: Path) -> None:
    first = open_first(str(first_run))
    codes = codes_of(first, images, CPU)
    for split in images.splits:
        indices = codes.indices(split)
        assert indices.dtype == np.uint8 and indices.shape == (images.splits[split], 2, 4, 3)
        assert not indices.flags.writeable
        assert np.array_equal(codes.labels(split), images.labels(split))
    # The unigram rate of the cached codes is the one that evaluation finds.
    found = codes.first_metrics("valid")
    assert found == evaluate_split(first.experiment, first.model, images, "valid")
    train = torch.from_numpy(codes.indices("train").astype(np.int64))
    valid = torch.from_numpy(codes.indices("valid").astype(np.int64))
    counts = torch.stack([torch.bincount(train[:, g].flatten(), minlength=16) for g in range(2)])
    rate = unigram_rate(valid, unigram_log_prior(counts)).mean().item() / math.log(2) / (16 * 12)
    assert found["rate_unigram"] == pytest.approx(rate, rel=0.05)  # fitted on 32 of the 64 training images


def test_codes_are_made_again_for_other_weights_and_other_images(
    images: Dataset, first_run: Path, tmp_path: Path
) -> None:
    first = open_first(str(first_run))
    known = codes_of(first, images, CPU)
    assert codes_of(first, images, CPU).folder == known.folder
    other = open_first(str(first_run))
    with torch.no_grad():
        next(other.model.parameters()).mul_(1.5)
    assert codes_of(other, images, CPU).folder != known.folder
    moved = write_made_up(tmp_path / "made_up", (16, 12, 1), train=60)
    assert codes_of(first, moved, CPU).fingerprint != known.fingerprint


def _encode(folder: str, first: str, results: Any) -> None:
    torch.set_num_threads(1)
    codes: Codes = codes_of(open_first(first), open_dataset(Path(folder)), CPU)
    results.put((str(codes.folder), codes.indices("train").astype(int).sum().item()))


def test_several_processes_encode_once(images: Dataset, first_run: Path, tmp_path: Path) -> None:
    own = write_made_up(tmp_path / "made_up", (16, 12, 1))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_encode, args=(own.folder, first_run, results)) for _ in range(3)]
    for child in children:
        child.start()
    found = {results.get(timeout=120) for _ in children}
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert len(found) == 1
    (folder,) = (path for path in (tmp_path / ".codes").iterdir() if path.is_dir())
    assert str(folder) == found.pop()[0]


def test_what_a_killed_process_left_is_cleared_and_damage_is_named(
    images: Dataset, first_run: Path, tmp_path: Path
) -> None:
    own = write_made_up(tmp_path / "made_up", (16, 12, 1))
    first = open_first(str(first_run))
    codes = codes_of(first, own, CPU)
    meta = (codes.folder / "codes.json").read_bytes()
    left = codes.folder.with_name(f".{codes.folder.name}.0123abcd.tmp")
    left.mkdir()
    (codes.folder / "codes.json").unlink()
    for path in codes.folder.rglob("*.npy"):
        path.unlink()
    codes.folder.rename(tmp_path / "away")
    again = codes_of(first, own, CPU)
    assert not left.exists() and (again.folder / "codes.json").read_bytes() == meta
    path = again.folder / "valid" / "indices.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"indices\.npy is damaged: its content is not what was written; delete"):
        codes_of(first, own, CPU)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"indices\.npy is damaged: 5 bytes where \d+ were written"):
        codes_of(first, own, CPU)


@pytest.fixture(scope="module")
def disjoint(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Classes 0 and 1 in train, 2 in valid, 1 and 3 in test, as in Mini-ImageNet."""
    folder = tmp_path_factory.mktemp("disjoint") / "disjoint"
    counts = {"train": 32, "valid": 8, "test": 4}
    with dataset_writer(folder, "disjoint", (8, 8, 1), counts, list("abcd"), {"from": "made up"}) as splits:
        for number, (split, plan) in enumerate(splits.items()):
            plan.images[:] = made_up_images(counts[split], (8, 8, 1), seed=number)
        splits["train"].labels[:] = np.arange(32) % 2
        splits["valid"].labels[:] = 2
        splits["test"].labels[:] = [1, 3, 3, 3]
    return open_dataset(folder)


def test_classes_that_train_lacks_are_priced_as_none(disjoint: Dataset) -> None:
    first = train_first(disjoint)
    experiment = second("prior", disjoint, first)
    report = last(fit(experiment, dataset=disjoint))
    model = restore(report.state, disjoint.shape)
    assert isinstance(model, Prior)
    assert model.pixelcnn.seen_classes.tolist() == [True, True, False, False, True]
    assert report.metrics["valid/known_class"] == 0
    indices = torch.from_numpy(codes_of(model.first, disjoint, CPU).indices("valid").astype(np.int64))
    with torch.no_grad():
        nats = model.pixelcnn.nll(indices).double().sum().item()
    assert report.metrics["valid/bits_per_code"] * 8 == pytest.approx(nats / math.log(2) / 8, rel=1e-6)
    none = math.log2(32 + 3) / 64  # 16 images of each class, and none without: add-one counts of three
    assert report.metrics["valid/rate_class"] == pytest.approx(none)
    assert evaluate_on(experiment, model, disjoint, "test")["known_class"] == 0.25
    with pytest.raises(ValueError, match=r"class 2 was not seen in training; seen: 0, 1, none"):
        model.pixelcnn.nll(indices, torch.full((8,), 2))
    with pytest.raises(ValueError, match=r"model\.null_rate is 0\.0; .* 8 images of valid have no class that train"):
        next(fit(with_overrides(experiment, {"model.null_rate": 0.0}), dataset=disjoint))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_hidden_classes(images: Dataset, first_run: Path, share: float) -> None:
    experiment = second("prior", images, first_run, **{"model.null_rate": share, "train.images": 8})
    model = restore(last(fit(experiment, dataset=images)).state, images.shape).train()
    assert isinstance(model, Prior)
    with torch.no_grad():
        model.pixelcnn.classes.weight.normal_()
    indices, labels = torch.zeros(10, 2, 4, 3, dtype=torch.long), torch.arange(10) % 2
    numbers = torch.arange(10)[:, None] / 10 + 0.05
    torch.manual_seed(0)
    got = model(indices, labels, *([numbers] if share else [])).loss
    hidden = labels.masked_fill(numbers[:, 0] < share, NO_LABEL)
    assert int((hidden == NO_LABEL).sum()) == round(10 * share)
    torch.manual_seed(0)
    assert torch.equal(got, model(indices, hidden).loss)
    assert bool(model.noise) == (share > 0)


def test_what_first_means(images: Dataset, first_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = Keeper(first_run).best()
    assert best is not None
    assert find_checkpoint(str(first_run)) == find_checkpoint(str(best.folder)) == best.folder
    # A sweep: the best checkpoint of its best trial. Its trials' folders hold ``checkpoints``.
    monkeypatch.setenv("VQSWEEP_RUNS", str(tmp_path))
    for run, value in (("000", 3.0), ("001", 2.0), ("002", 2.5)):
        Keeper(tmp_path / "beta" / "trials" / run / "checkpoints").save(
            best.state(), {"valid/bits_per_dim": value}, images.shape
        )
    assert find_checkpoint("beta").parent == tmp_path / "beta" / "trials" / "001" / "checkpoints"
    experiment = second("prior", images, first_run)
    assert pinned(experiment).model == with_overrides(experiment, {"model.first": str(best.folder)}).model
    nameless = with_overrides(experiment, {"model.first": ""})
    with pytest.raises(ValueError, match=r"model\.first is not given and there is no .*/made_up_vqvae; allowed is"):
        pinned(nameless)
    (tmp_path / "made_up_vqvae").symlink_to(first_run)
    assert read(Path(pinned(nameless).model.first)).experiment == best.experiment  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"model\.first is 'nowhere', where there is no checkpoint; allowed is"):
        find_checkpoint("nowhere")
    assert pinned(tiny()) == tiny()


@pytest.mark.parametrize("config", [DVAEConfig, VIMCOConfig])
def test_a_prior_prices_the_likeliest_codes_of_a_model_that_draws_them(
    config: type[DVAEConfig | VIMCOConfig], tmp_path: Path
) -> None:
    images = write_made_up(tmp_path / "made_up", (16, 12, 1))
    model = config(hidden=8, residual_blocks=1, num_codes=16, code_dim=4, likelihood="mixture")
    found = train_first(images, replace(tiny(), model=model))
    report = last(fit(second("prior", images, found), dataset=images))
    prior = restore(report.state, images.shape)
    best = Keeper(found).best()
    assert isinstance(prior, Prior) and best is not None
    drawing = restore(best.state(), images.shape)
    assert isinstance(drawing, CategoricalModel) and drawing.stochastic
    # D and R by hand, of the codes of largest probability, on the whole validation split.
    levels = torch.tensor(np.array(images.images("valid"))).permute(0, 3, 1, 2)
    with torch.no_grad():
        z = drawing.log_probs(to_unit(levels)).argmax(-1)
        nats = drawing.head.nll(drawing.raw(z), levels, None).sum()
        rate = prior.nll(z, torch.tensor(images.labels("valid"))).sum()
    count = levels.numel()
    assert report.metrics["valid/distortion"] == pytest.approx(float(nats) / count / math.log(2), rel=1e-5)
    own = report.metrics["valid/rate_prior"] - report.metrics["valid/rate_class"]
    assert own == pytest.approx(float(rate) / count / math.log(2), rel=1e-5)
    total = report.metrics["valid/distortion"] + report.metrics["valid/rate_prior"]
    assert report.metrics["valid/bits_per_dim"] == pytest.approx(total)
    assert "valid/bits_per_dim_s10" not in report.metrics  # one z an image: no bound is tighter


def test_a_first_stage_of_another_kind_or_of_other_images_is_refused(
    images: Dataset, first_run: Path, made_up: Dataset, tmp_path: Path
) -> None:
    report = last(fit(second("prior", images, first_run), dataset=images))
    Keeper(tmp_path).save(report.state, report.metrics, images.shape)
    with pytest.raises(ValueError, match=r"model\.first is a prior; allowed is a vqvae, dvae or vimco, whose codes"):
        open_first(str(tmp_path))
    first = open_first(str(first_run))
    with pytest.raises(ValueError, match=r"model\.first is a vqvae of images 12 x 16 x 1; those of made_up are 8 x 8"):
        codes_of(first, made_up, CPU)
    other = write_made_up(tmp_path / "others", (16, 12, 1))
    with pytest.raises(ValueError, match=r"data\.name is 'others'; allowed is 'made_up', which model\.first was"):
        codes_of(first, other, CPU)


def test_a_state_goes_on_where_the_first_stage_was_moved_and_not_with_another(
    images: Dataset, first_run: Path, tmp_path: Path
) -> None:
    experiment = second("prior", images, first_run)
    report = next(fit(experiment, dataset=images))
    best = Keeper(first_run).best()
    assert best is not None
    Keeper(tmp_path / "moved").save(best.state(), best.metrics, images.shape)
    moved = with_overrides(experiment, {"model.first": str(tmp_path / "moved")})
    assert next(fit(moved, report.state, images)).images_seen == 32
    state = best.state()
    state["model"] = {name: tensor * 1.01 for name, tensor in state["model"].items()}
    Keeper(tmp_path / "other").save(state, best.metrics, images.shape)
    with pytest.raises(ValueError, match="has seen other"):
        next(fit(with_overrides(experiment, {"model.first": str(tmp_path / "other")}), report.state, images))


def test_every_data_set_of_the_report_has_both_presets() -> None:
    sizes = {"mnist": (12, 64), "fashion_mnist": (12, 64), "cifar10": (12, 64), "boxing": (15, 256)}
    sizes |= {"mini_imagenet": (15, 256)}
    for name, size in sizes.items():
        prior, hierarchy = PRESETS[f"{name}_prior"](), PRESETS[f"{name}_hierarchy"]()
        assert isinstance(prior.model, PriorConfig) and (prior.model.layers, prior.model.hidden) == size
        model = hierarchy.model
        assert isinstance(model, HierarchyConfig) and hierarchy.train.lr == 3e-3
        assert (model.codes, model.num_codes, model.code_dim) == (3, 512, 256)
        assert (model.layers, model.decoder_hidden, model.kernel) == (15, 16, 5)
        assert model.decoder.first_kernel == model.decoder.kernel == 5
        assert (model.pooling, model.condition, model.rare_weight) == ("average", "vector", 0.0)
        kept = PRESETS[f"{name}_hierarchy_map"]().model
        assert isinstance(kept, HierarchyConfig)
        assert (kept.codes, kept.pooling, kept.condition) == (1, "none", "map")
        assert prior.data == hierarchy.data == PRESETS[f"{name}_vqvae"]().data


def test_checkpoints_say_what_is_damaged_in_the_first_stage(images: Dataset, first_run: Path, tmp_path: Path) -> None:
    report = next(fit(second("hierarchy", images, first_run), dataset=images))
    folder = Keeper(tmp_path).save(report.state, report.metrics, images.shape)
    assert set(json.loads((folder / "checkpoint.json").read_text())["files"]) == {
        *("experiment.json", "model.safetensors", "training.pt"),
        *("first/experiment.json", "first/model.safetensors"),
    }
    (folder / "first" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"first/model\.safetensors is damaged"):
        read(folder)
