"""The report's experiments by name: ``<dataset>_<model>()``; everything else is one of these with fields changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from vqvae_core.config import (
    DataConfig,
    DVAEConfig,
    Experiment,
    HierarchyConfig,
    PriorConfig,
    TrainConfig,
    VAEConfig,
    VIMCOConfig,
    VQVAEConfig,
)

# The report, 2.1: beta 1, learning rate 3e-4, batch 32, K 512, D 256, codebook U(-1/K, 1/K).
_REPORT = TrainConfig(images=1_000_000, batch_size=32, lr=3e-4)


def digits_vqvae() -> Experiment:
    """8 x 8 digits (bundled with scikit-learn): small enough to train in a minute on one core."""
    model = VQVAEConfig(hidden=64, num_codes=64, code_dim=16)
    return Experiment(DataConfig("digits"), model, TrainConfig(images=50_000))


def mnist_vqvae() -> Experiment:
    """28 x 28 x 1 -> 7 x 7 codes; the report found batch normalisation essential here (2.1)."""
    return Experiment(DataConfig("mnist"), VQVAEConfig(batch_norm=True), _REPORT)


def fashion_mnist_vqvae() -> Experiment:
    """28 x 28 x 1 -> 7 x 7 codes (Appendix A)."""
    return Experiment(DataConfig("fashion_mnist"), VQVAEConfig(batch_norm=True), _REPORT)


def cifar10_vqvae() -> Experiment:
    """32 x 32 x 3 -> 8 x 8 codes (2.1)."""
    return Experiment(DataConfig("cifar10"), VQVAEConfig(), _REPORT)


def mini_imagenet_vqvae() -> Experiment:
    """128 x 128 x 3 -> 32 x 32 codes of 64 dimensions (2.2)."""
    return Experiment(DataConfig("mini_imagenet", size=128), VQVAEConfig(code_dim=64), _REPORT)


def boxing_vqvae() -> Experiment:
    """84 x 84 x 3 -> 21 x 21 codes (2.3.1); the report cut its batch of 32 into 8 parts: ``train.accumulate=8``."""
    return Experiment(DataConfig("boxing"), VQVAEConfig(), _REPORT)


def _prior(dataset: DataConfig, layers: int, hidden: int, images: int = 1_000_000) -> Experiment:
    """A gated PixelCNN on the codes of ``<data set>_vqvae``; the report gives no more than layers and channels."""
    train = TrainConfig(images=images, lr=1e-3, grad_clip=1.0)
    return Experiment(dataset, PriorConfig(layers=layers, hidden=hidden), train)


def digits_prior() -> Experiment:
    """On 2 x 2 codes: small enough to train in a minute on one core."""
    return _prior(DataConfig("digits"), layers=4, hidden=32, images=50_000)


def mnist_prior() -> Experiment:
    """On 7 x 7 codes, 12 layers of 64 channels (2.1)."""
    return _prior(DataConfig("mnist"), layers=12, hidden=64)


def fashion_mnist_prior() -> Experiment:
    """On 7 x 7 codes, as for MNIST."""
    return _prior(DataConfig("fashion_mnist"), layers=12, hidden=64)


def cifar10_prior() -> Experiment:
    """On 8 x 8 codes, 12 layers of 64 channels (2.1)."""
    return _prior(DataConfig("cifar10"), layers=12, hidden=64)


def mini_imagenet_prior() -> Experiment:
    """On 32 x 32 codes; 2.2 gives no size of its own, so 2.3.1's."""
    return _prior(DataConfig("mini_imagenet", size=128), layers=15, hidden=256)


def boxing_prior() -> Experiment:
    """On 21 x 21 codes, 15 layers of 256 channels (2.3.1)."""
    return _prior(DataConfig("boxing"), layers=15, hidden=256)


def _hierarchy(dataset: DataConfig, images: int = 1_000_000) -> Experiment:
    """2.4: three codes of the encoder's mean over the map, a decoder of 15 layers x 16, learning rate 0.003."""
    return Experiment(dataset, HierarchyConfig(), TrainConfig(images=images, lr=3e-3, grad_clip=1.0))


def digits_hierarchy() -> Experiment:
    """2 x 2 codes to three: nothing is saved, but it takes a minute on one core."""
    base = _hierarchy(DataConfig("digits"), images=50_000)
    return replace(base, model=HierarchyConfig(hidden=32, num_codes=16, code_dim=16, layers=4))


def mnist_hierarchy() -> Experiment:
    """7 x 7 codes to three."""
    return _hierarchy(DataConfig("mnist"))


def fashion_mnist_hierarchy() -> Experiment:
    """7 x 7 codes to three."""
    return _hierarchy(DataConfig("fashion_mnist"))


def cifar10_hierarchy() -> Experiment:
    """8 x 8 codes to three."""
    return _hierarchy(DataConfig("cifar10"))


def mini_imagenet_hierarchy() -> Experiment:
    """32 x 32 codes to three."""
    return _hierarchy(DataConfig("mini_imagenet", size=128))


def boxing_hierarchy() -> Experiment:
    """21 x 21 codes to three, as the report has it: where the players are is lost (not in ``boxing_hierarchy_map``)."""
    return _hierarchy(DataConfig("boxing"))


def tiny() -> Experiment:
    """Seconds on any machine, for tests and for a first look."""
    model = VQVAEConfig(hidden=8, residual_blocks=1, num_codes=16, code_dim=4)
    return Experiment(
        DataConfig("digits"), model, TrainConfig(images=256, batch_size=16, lr=1e-3, calibration_images=64)
    )


def vae(beside: Callable[[], Experiment]) -> Experiment:
    """The VAE beside a VQ-VAE, trained on squared errors as in the report: 128 dimensions for an image.

    A large image has a vector at each position of the map instead: 128 dimensions would be too few, and the linear
    layers around them larger than all the rest.
    """
    base = beside()
    large = base.data.name in LARGE
    return replace(base, model=VAEConfig(**_shared(base), latent_dim=8 if large else 128, latent_map=large))


def vimco(beside: Callable[[], Experiment]) -> Experiment:
    """VIMCO beside a VQ-VAE: as many codes, drawn from a distribution; 10 samples, a fifth of the original paper's."""
    base = beside()
    at_once = 1 if base.data.name in LARGE else 0
    return replace(base, model=VIMCOConfig(**_shared(base), **_codes(base), samples=10, samples_at_once=at_once))


def dvae(beside: Callable[[], Experiment]) -> Experiment:
    """The dVAE beside a VQ-VAE: as many codes, relaxed in training."""
    base = beside()
    return replace(base, model=DVAEConfig(**_shared(base), **_codes(base)))


LARGE = ("mini_imagenet", "boxing")  # a softmax over 256 levels for each of their values would need gigabytes


def _shared(base: Experiment) -> dict[str, Any]:
    model = base.model
    assert isinstance(model, VQVAEConfig)
    return {"hidden": model.hidden, "residual_blocks": model.residual_blocks, "batch_norm": model.batch_norm}


def _codes(base: Experiment) -> dict[str, Any]:
    """The codes of a VQ-VAE, and a likelihood to train on: squared errors are none."""
    assert isinstance(base.model, VQVAEConfig)
    names = ("num_codes", "code_dim", "codes_per_position")
    head = {"likelihood": "logistic", "scale": "channel"} if base.data.name in LARGE else {"likelihood": "categorical"}
    return {name: getattr(base.model, name) for name in names} | head


_VQVAES = (digits_vqvae, mnist_vqvae, fashion_mnist_vqvae, cifar10_vqvae, mini_imagenet_vqvae, boxing_vqvae)


def map_of_codes(report: Callable[[], Experiment]) -> Experiment:
    """A second VQ-VAE that keeps what moves where it is: a code for each cell of 4 x 4 positions, all of one codebook.

    The codebook is kept alive, and the decoder told at each position what its cell's code says; its size is the
    report's.
    """
    base = report()
    model = base.model
    assert isinstance(model, HierarchyConfig)
    model = replace(
        model,
        codes=1,
        pooling="none",
        condition="map",
        code_dim=64,
        quantizer="ema",
        codebook_init="kmeans",
        restart_below=0.05,
        beta=0.25,
    )
    return replace(base, model=model, train=replace(base.train, lr=2e-3, batch_size=16))


_PRIORS = (digits_prior, mnist_prior, fashion_mnist_prior, cifar10_prior, mini_imagenet_prior, boxing_prior)
_HIERARCHIES = (
    digits_hierarchy,
    mnist_hierarchy,
    fashion_mnist_hierarchy,
    cifar10_hierarchy,
    mini_imagenet_hierarchy,
    boxing_hierarchy,
)

PRESETS: dict[str, Callable[[], Experiment]] = {
    **{preset.__name__: preset for preset in _VQVAES},
    **{
        preset.__name__.replace("vqvae", model.__name__): partial(model, preset)
        for model in (vae, vimco, dvae)
        for preset in _VQVAES
    },
    **{preset.__name__: preset for preset in (*_PRIORS, *_HIERARCHIES)},
    **{f"{preset.__name__}_map": partial(map_of_codes, preset) for preset in _HIERARCHIES},
    "tiny": tiny,
}


def preset_for(dataset: str, model: str) -> Experiment:
    """The preset of a data set and a model; a data set that the report does not know takes CIFAR-10's."""
    known = PRESETS.get(f"{dataset}_{model}")
    if known:
        return known()
    if f"cifar10_{model}" not in PRESETS:
        models = ", ".join(name.removeprefix("cifar10_") for name in PRESETS if name.startswith("cifar10_"))
        raise ValueError(f"there is no preset for model {model!r}; allowed is one of {models}")
    base = PRESETS[f"cifar10_{model}"]()
    return replace(base, data=DataConfig(dataset))


def __getattr__(name: str) -> Callable[[], Experiment]:
    """Presets that are made of others, ``mnist_vae`` of ``mnist_vqvae``, are functions of this module as those are."""
    if name in PRESETS:
        return PRESETS[name]
    raise AttributeError(f"there is no preset {name!r}")
