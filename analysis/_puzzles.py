"""The eight puzzles of the report, each with how its runs are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis._verdicts import (
    BITS,
    Arms,
    Curves,
    Difference,
    Finding,
    Puzzle,
    difference,
    mean,
    named,
    of_all,
    scale_of,
    values,
    with_interval,
)
from analysis.runs import Run


def batch_norm(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """1: does MNIST need it?"""
    gap = difference(arms, "none", "batch_norm")
    if gap.clear:
        answer = "Yes: without it the model is worse." if gap.mean > 0 else "No: without it the model is better."
    else:
        answer = "Not that these seeds could tell."
    answer += " The report's blocks rewrite their input; what that does without normalisation is puzzle 8."
    evidence = [f"bits/dim without minus with batch normalisation: {gap}"]
    evidence += [
        f"without, {name}: {with_interval(values(arms[arm]))} bits/dim (n = {len(arms[arm])} seeds; "
        f"with normalisation {with_interval(values(arms['batch_norm']))})"
        for arm, name in (
            ("none", "as the report's otherwise"),
            ("none_linear", "linear output"),
            ("none_kmeans", "codebook by k-means"),
            ("none_softmax", "256-way softmax"),
        )
    ]
    return Finding(answer, evidence, BITS, of_all(arms), scale_of(arms))


def frozen(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """2: is a random frozen codebook as good?"""
    evidence, found = [], []
    for dim in (8, 256):
        uniform = difference(arms, f"frozen_d{dim}", f"trained_d{dim}")
        best = difference(arms, f"frozen_d{dim}", f"ema_kmeans_d{dim}")
        normal = difference(arms, f"frozen_normal_d{dim}", f"trained_d{dim}")
        evidence += [
            f"D {dim}: frozen U(-1/K, 1/K) minus trained from the same start: {uniform} bits/dim",
            f"D {dim}: frozen N(0, 1) minus trained from U(-1/K, 1/K): {normal} bits/dim",
            f"D {dim}: frozen U(-1/K, 1/K) minus moving averages from k-means: {best} bits/dim",
            f"D {dim}: perplexity {mean(arms[f'frozen_d{dim}'], 'valid/perplexity'):.1f} frozen, "
            f"{mean(arms[f'trained_d{dim}'], 'valid/perplexity'):.1f} trained, "
            f"{mean(arms[f'ema_kmeans_d{dim}'], 'valid/perplexity'):.1f} moving averages",
        ]
        found.append(
            f"at D {dim} {against(uniform)} one trained from the same start and {against(best)} one of moving averages "
            f"from k-means; drawn wider, from N(0, 1), {against(normal)} the trained one"
        )
    answer = f"A frozen random codebook is {'. It is '.join(found)}."
    params = arms["frozen_d8"][0].params
    note = f"K {params['model.num_codes']}, lr {params['train.lr']}, with batch normalisation"
    return Finding(answer, evidence, BITS, of_all(arms), scale_of(arms, note))


def against(gap: Difference) -> str:
    """A difference in bits/dim in words."""
    if not gap.clear:
        return "not separable from"
    return "worse than" if gap.mean > 0 else "better than"


EPOCH = 1350  # training images of the digits
RISE = 0.1  # bits/dim that a run ends above its own best, from which it may be called diverging


def beta(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """3: does beta 0.25 diverge after 50 epochs?"""
    evidence = []
    for lr in ("0.0003", "0.001"):
        gap = difference(arms, f"beta_0.25_lr_{lr}", f"beta_1.0_lr_{lr}")
        evidence.append(f"lr {lr}: bits/dim at beta 0.25 minus at beta 1: {gap}")
        low, high = (mean(arms[f"beta_{beta}_lr_{lr}"], "valid/latent_rms") for beta in ("0.25", "1.0"))
        evidence.append(f"lr {lr}: rms of the latents {low:.3f} at beta 0.25, {high:.3f} at beta 1")
    runs = [run for arm, own in arms.items() if arm.startswith("beta_0.25") for run in own]
    rises = [curve[-1][1] - min(value for _, value in curve) for run in runs if (curve := curves[run.id])]
    broken = sum(run.params["arm"].startswith("beta_0.25") for run in failed) + sum(rise > RISE for rise in rises)
    count = len(runs) + sum(run.params["arm"].startswith("beta_0.25") for run in failed)
    epochs = int(runs[0].params["train.images"]) // EPOCH
    if broken:
        answer = f"It does: {broken} of {count} runs at beta 0.25 broke or ended {RISE} bits/dim above their best."
    else:
        bound = 1 - 0.05 ** (1 / count)
        answer = (
            f"Not by itself: none of {count} runs at beta 0.25 diverged in {epochs} epochs "
            f"(so fewer than {bound:.0%} do, at 95 %)."
        )
    evidence.append(f"runs at beta 0.25 end at most {max(rises):.3f} bits/dim above their own best")
    seeds = {lr: len(arms[f"beta_0.25_lr_{lr}"]) for lr in ("0.0003", "0.001")}
    note = f"{epochs} epochs of {EPOCH:,} images, " + ", ".join(f"{n} seeds at lr {lr}" for lr, n in seeds.items())
    if len(set(seeds.values())) > 1:
        note += f" (the command makes {max(seeds.values())} of each)"
    return Finding(answer, evidence, BITS, of_all(arms), scale_of(arms, note, seeds=False))


def unseen_label(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """4: why are samples conditioned on 1 not Boxing?"""
    training = arms["training"][0].metrics
    none, untrained = mean(arms["none"], "bits_per_code"), values(arms["untrained"], "bits_per_code")
    still = training["row_1/moved"] == training["row_1/gradient"] == 0
    answer = (
        "Because the label 1 was in no training frame: its embedding got no gradient and stayed random noise."
        if still and min(untrained) > none
        else "Not because of an untrained row: that row moved, or costs nothing."
    )
    spread = f"{with_interval(untrained, 2)} ({min(untrained):.2f} to {max(untrained):.2f})"
    evidence = [
        f"trained on the label 0 alone, row 0 moved by {training['row_0/moved']:.3g}, row 1 by "
        f"{training['row_1/moved']:g} (gradient {training['row_1/gradient']:g}): exact",
        f"real frames cost {none:.3f} bits per code without a condition, {spread} with a row that was never trained "
        f"(n = {len(untrained)} draws of it)",
    ]
    shown = {"no condition": [none], "an untrained row": untrained}
    params = arms["none"][0].params
    scale = (
        f"exact for the gradient; {int(params['maps']):,} validation frames of {arms['none'][0].dataset} under a prior "
        f"that has seen {int(params['images_seen']):,} maps"
    )
    return Finding(answer, evidence, "bits_per_code", shown, scale)


LOST = "valid/second_foreground_error"  # where players, score and clock are: 0 all is kept, 1 only background
CHANGES = (  # what is changed, from which setting, to which
    ("codebooks kept alive", "report", "alive"),
    ("twelve times as many codes of the whole map", "alive", "rate"),
    ("as many codes, each of a cell and heard there", "rate", "cells"),
    ("three codes of weighed positions and not of their mean", "alive", "positions"),
    ("a decoder twice as wide", "alive", "decoder"),
    ("a loss that weighs rare codes more", "alive", "rare"),
)


def three_codes(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """5: why does the second VQ-VAE lose the players? By settings of which each is one change away from another."""
    gaps = {words: difference(arms, after, before, LOST) for words, before, after in CHANGES}
    helped = [words for words, gap in gaps.items() if gap.clear and gap.mean < 0]
    harmed = [words for words, gap in gaps.items() if gap.clear and gap.mean > 0]
    unclear = [words for words, gap in gaps.items() if not gap.clear]
    parts = [
        f"{verb}: {'; '.join(some)}"
        for verb, some in (
            ("what keeps more of them, alone", helped),
            ("what keeps less", harmed),
            ("what these seeds cannot tell from no change", unclear),
        )
        if some
    ]
    place = CHANGES[2][0] in helped and CHANGES[1][0] not in helped
    answer = "For want of place, not of rate. " if place else ""
    answer += f"{'. '.join(part[0].upper() + part[1:] for part in parts)}."

    def state(arm: str) -> str:
        used, most = (mean(arms[arm], f"valid/{name}") for name in ("information", "information_most"))
        return (
            f"{with_interval(values(arms[arm], LOST), 3)} is left, and a map is {used:.1f} bits dearer under another "
            f"image's codes, which can hold {most:.0f}"
        )

    evidence = [
        f"the report's three codes, of the error where players, score and clock are in an empty ring: {state('report')}"
    ]
    for words, before, after in CHANGES:
        gap = gaps[words]
        half = "" if gap.half is None else f" ± {gap.half:.3f}"
        evidence.append(
            f"{words}: {gap.mean:+.3f}{half} (n = {gap.n} seed{'s' * (gap.n > 1)}, {before} -> {after}): {state(after)}"
        )
    run = arms["report"][0]
    first = mean([run for own in arms.values() for run in own], "valid/first_foreground_error")
    evidence.append(f"the first VQ-VAE alone, the same under all of them, leaves {first:.3f}")
    counts = sorted({len(own) for own in arms.values()})
    stopped = " (the sweep was stopped before its end)" if len(counts) > 1 else ""
    scale = (
        f"{named(run)}, frames of {run.tags.get('data.shape', '?').rpartition('x')[0].replace('x', ' x ')} pixels (the "
        f"report: 84 x 84), one first stage, {int(run.params['train.images']):,} maps seen at batch "
        f"{run.params['train.batch_size']}, {' or '.join(map(str, counts))} seeds{stopped}; "
        "so short a training may favour what learns fast"
    )
    return Finding(answer, evidence, LOST, of_all(arms, LOST), scale)


def memory(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """6: where does the memory go?"""

    def peak(arm: str) -> dict[int, float]:
        return {int(run.params["batch"]): run.metrics["memory/peak_mb"] for run in arms[arm]}

    naive, matrix, ours = peak("difference"), peak("matrix"), peak("ours")
    at_32 = naive[4] * 8
    linear = "linear" if abs(naive[4] / naive[1] - 4) < 0.04 else "not linear"
    answer = (
        f"Into the difference of every vector to every code: {at_32 / 1024:.1f} GiB at batch 32 (N K D numbers, "
        f"twice), not K squared; {ours[32]:.1f} MiB without it."
    )
    evidence = [
        f"difference as a whole: {naive[1]:.0f}, {naive[2]:.0f}, {naive[4]:.0f} MiB at batch 1, 2, 4 "
        f"({naive[2] / naive[1]:.3f} and {naive[4] / naive[1]:.3f} times the first: {linear})",
        f"distance matrix: {matrix[32]:.0f} MiB at batch 32; in pieces, as here: {ours[32]:.1f} MiB; the same codes",
    ]
    shown = {
        "difference, batch 4": [naive[4]],
        "matrix, batch 32": [matrix[32]],
        "in pieces, batch 32": [ours[32]],
    }
    scale = "the report's own sizes; its way at batch 1, 2, 4, extrapolated to 32; one measurement of each, repeatable"
    return Finding(answer, evidence, "memory/peak_mb", shown, scale)


DEFINITIONS = {
    "bits/eq7": "Equation 7 as printed",
    "bits/sigma_1": "its signs corrected, sigma 1",
    "bits/best_sigma": "best sigma, still a density",
    "bits/gaussian_mass": "mass under a Gaussian of that scale",
    "bits/logistic_mass": "mass under a logistic",
}


def definitions(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """7: why does Table 1 differ? By the newest model, with those on other data sets beside it."""
    names = ("the model", "the model, blurred", "a grey image")
    models: dict[str, dict[str, Run]] = {}  # of each data set, in the order in which they were measured
    for name in names:
        for run in arms[name]:
            models.setdefault(run.dataset, {})[name] = run
    *others, newest = models.values()
    model, blurred, grey = (newest[name] for name in names)
    three = ((model, "the model"), (blurred, "blurred"), (grey, "grey"))
    upside_down = grey.metrics["bits/eq7"] < blurred.metrics["bits/eq7"] < model.metrics["bits/eq7"]
    rivals = [run.metrics for run in (blurred, grey)]
    masses = ("bits/gaussian_mass", "bits/logistic_mass")
    right = all(model.metrics[name] < min(m[name] for m in rivals) for name in masses)
    answer = (
        "Equation 7 is no likelihood: under it a blurred reconstruction beats the model and a grey image beats both; "
        "as a mass of integers under a fitted scale the model is the best of the three."
        if upside_down and right
        else "The definitions do not order model, blurred model and grey image as expected."
    )
    evidence = [
        f"{words}: " + ", ".join(f"{run.metrics[name]:.3f} {what}" for run, what in three)
        for name, words in DEFINITIONS.items()
    ]
    count = int(model.params["test_images"])
    evidence += [f"{words}: {gaps_of(newest, name)} (n = {count:,} images)" for name, words in PAIRED.items()]
    evidence.append(
        f"codes at {model.metrics['rate']:.4f} bits/dim (uniform prior); the original paper's on CIFAR10 have 1.875"
    )
    for other in others:
        first = other["the model"]
        images = int(first.params["test_images"])
        evidence += [
            f"{named(first)}, {words}: {gaps_of(other, name)} (n = {images:,} images)" for name, words in PAIRED.items()
        ]
        wide = ", ".join(
            f"{run.metrics['bits/sigma_1']:.3f} {what.removeprefix('the model, ')}" for what, run in other.items()
        )
        evidence.append(f"{named(first)}, {DEFINITIONS['bits/sigma_1']}: {wide}")
    shown = {
        f"{words}: {what}": [run.metrics[name]]
        for name, words in (("bits/eq7", "Equation 7"), ("bits/logistic_mass", "mass of a logistic"))
        for run, what in three
    }
    scale = "all definitions on one model of " + " and on one of ".join(
        f"{named(run)}, mse {run.metrics['mse']:.4f}, {int(run.params['images_seen']):,} images seen, and its "
        f"{int(run.params['test_images']):,} test images"
        for run in (model, *(other["the model"] for other in others))
    )
    return Finding(answer, evidence, "bits/dim", shown, scale)


PAIRED = {name: DEFINITIONS[name] for name in ("bits/eq7", "bits/logistic_mass")}  # measured image by image


def gaps_of(models: Mapping[str, Run], metric: str) -> str:
    """How much dearer blurring and grey are than the model itself, with 95 % intervals over the test images."""
    pairs = (("blurred", models["the model, blurred"].metrics), ("grey", models["a grey image"].metrics))
    return ", ".join(
        f"{what} minus model {m[f'{metric}_more']:+.4f} ± {m[f'{metric}_more_half']:.4f}" for what, m in pairs
    )


def in_place(arms: Arms, failed: Sequence[Run], curves: Curves) -> Finding:
    """8: what does the in-place ReLU do?"""
    plain, rewritten = arms["ours_none"], arms["in_place_none"]
    below, unseen = "codes/not_positive", "fresh/codes/not_positive_without_gradient"
    gaps = {kind: difference(arms, f"in_place_{kind}", f"ours_{kind}") for kind in ("none", "batch_norm")}
    stuck = {
        name: [run.metrics["valid/mse"] > 0.9 * run.metrics["black/mse"] for run in runs]
        for name, runs in (("with it", rewritten), ("without it", plain))
    }
    exact = min(values(rewritten, unseen)) == 1 and max(values(rewritten, "fresh/codes/rectified_changes_output")) == 0
    answer = (
        "It hides from the decoder whatever a code has below zero, and stops the reconstruction's gradient there"
        if exact
        else "It does not hide what a code has below zero"
    )
    effect = [kind for kind, gap in gaps.items() if gap.clear]
    answer += "; bits/dim change " + (f"for {', '.join(effect)}." if effect else "by less than these seeds can tell.")
    evidence = [
        f"at the start {mean(rewritten, f'fresh/{below}'):.0%} of the codes' values are not positive: of those "
        f"{mean(rewritten, unseen):.0%} have no gradient with it, {mean(plain, unseen):.0%} without",
        f"after training {mean(rewritten, below):.0%} are not positive with it, {mean(plain, below):.0%} without",
    ]
    evidence.append(
        "without batch normalisation, runs that end at the all-black image: "
        + ", ".join(f"{sum(own)} of {len(own)} {name}" for name, own in stuck.items())
    )
    evidence += [
        f"{'with' if kind == 'batch_norm' else 'without'} batch normalisation: {gap} bits/dim more with it; by seed "
        + ", ".join(f"{value:.3f}" for value in values(arms[f"in_place_{kind}"]))
        + " against "
        + ", ".join(f"{value:.3f}" for value in values(arms[f"ours_{kind}"]))
        for kind, gap in gaps.items()
    ]
    return Finding(answer, evidence, BITS, of_all(arms), "exact for the gradient; " + scale_of(arms))


SOURCE = "--data-source DIR"
PUZZLES = (
    Puzzle(
        1,
        "Does MNIST need batch normalisation?",
        "puzzle_batch_norm",
        f"python sweeps/puzzles/batch_norm.py {SOURCE}",
        "runs at 256 channels, without in-place blocks, that stay at the mean image without normalisation",
        batch_norm,
    ),
    Puzzle(
        2,
        "Is a random frozen codebook as good as a trained one?",
        "puzzle_frozen_codebook",
        f"python sweeps/puzzles/frozen_codebook.py {SOURCE}",
        "the opposite order at the report's width and budget, with intervals apart",
        frozen,
    ),
    Puzzle(
        3,
        "Does beta 0.25 diverge after 50 epochs where beta 1 does not?",
        "puzzle_beta",
        "python sweeps/puzzles/beta.py",
        "a run at beta 0.25 that diverges on the report's data and width, without in-place blocks",
        beta,
    ),
    Puzzle(
        4,
        "Why are Boxing samples that are conditioned on 1 not Boxing?",
        "puzzle_unseen_label",
        "python sweeps/puzzles/unseen_label.py --checkpoint boxing_prior",
        "a gradient that reaches row 1, or training data with the label 1",
        unseen_label,
        pictures=("gallery/figure-08-boxing.png",),
    ),
    Puzzle(
        5,
        "Why does the second VQ-VAE lose the players?",
        "puzzle_three_codes",
        "python sweeps/puzzles/three_codes.py --model.first boxing44_vqvae",
        "another order of the settings at the report's size and budget, with intervals apart",
        three_codes,
        pictures=tuple(f"puzzles/5-{arm}/figure-09-boxing44.png" for arm in ("report", "rate", "cells")),
    ),
    Puzzle(
        6,
        "Where does the memory go at batch 32 of 84 x 84?",
        "puzzle_memory",
        "python sweeps/puzzles/memory.py",
        "a peak that is not linear in the batch, or that grows with K squared",
        memory,
    ),
    Puzzle(
        7,
        "Why does Table 1 differ from the original paper?",
        "puzzle_definitions",
        "python sweeps/puzzles/definitions.py --checkpoint cifar10_vqvae",
        "a model that Equation 7 prefers to its own blurred reconstructions",
        definitions,
        every_dataset=True,
    ),
    Puzzle(
        8,
        "What does the in-place ReLU of the report's code do to the codes?",
        "puzzle_in_place",
        f"python sweeps/puzzles/in_place.py {SOURCE}",
        "a gradient of the reconstruction at a code's value below zero; for bits/dim, more seeds or width",
        in_place,
    ),
)
