"""What an experiment is: frozen dataclasses whose every field says what it means and what it may be."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


def option(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field with its one-line documentation (also its ``--help``) and the values that it allows."""
    bounds = {">=": least, ">": above, "<=": most, "<": below}
    metadata = {"doc": doc, "choices": choices, "bounds": {sign: v for sign, v in bounds.items() if v is not None}}
    return field(default=default, metadata=metadata)


def type_hints(cls: type) -> dict[str, Any]:
    """The types of a config class's fields, resolved from their annotations."""
    return typing.get_type_hints(cls)


def plain_types(hint: Any) -> tuple[type, ...]:
    """``int | None`` -> ``(int, NoneType)``, ``int`` -> ``(int,)``."""
    if isinstance(hint, types.UnionType):
        return tuple(plain for part in typing.get_args(hint) for plain in plain_types(part))
    return (typing.get_origin(hint) or hint,)


def allowed(spec: dataclasses.Field[Any], hint: Any) -> str:
    """In words, what a field may be: ``an integer >= 1``."""
    if spec.metadata.get("choices"):
        return "one of " + ", ".join(str(c) for c in spec.metadata["choices"])
    kinds = plain_types(hint)
    noun = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(kinds[0], str(kinds[0]))
    limits = " and ".join(f"{sign} {value:g}" for sign, value in spec.metadata.get("bounds", {}).items())
    return " ".join(part for part in (noun, limits) if part) + (" or none" if types.NoneType in kinds else "")


_HOLDS = {
    ">=": lambda x, y: x >= y,
    ">": lambda x, y: x > y,
    "<=": lambda x, y: x <= y,
    "<": lambda x, y: x < y,
}


class Checked:
    """A config section; building one with a value that its fields do not allow raises ``ValueError``."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = type_hints(type(self))
        for spec in fields(self):  # type: ignore[arg-type]
            if "doc" not in spec.metadata:
                continue
            value = getattr(self, spec.name)
            if not _is_allowed(value, spec, hints[spec.name]):
                name = ".".join(part for part in (self.section, spec.name) if part)
                raise ValueError(f"{name} is {value!r}; allowed is {allowed(spec, hints[spec.name])}")
            if isinstance(value, int) and float in plain_types(hints[spec.name]):
                object.__setattr__(self, spec.name, float(value))  # 1 and 1.0 are one setting, with one spelling


def _is_allowed(value: Any, spec: dataclasses.Field[Any], hint: Any) -> bool:
    kinds = plain_types(hint)
    if value is None:
        return types.NoneType in kinds
    if isinstance(value, bool) and bool not in kinds:
        return False
    if not isinstance(value, kinds) and not (isinstance(value, int) and float in kinds):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if spec.metadata["choices"] and value not in spec.metadata["choices"]:
        return False
    return all(_HOLDS[sign](value, limit) for sign, limit in spec.metadata["bounds"].items())


DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it is also a folder's name


@dataclass(frozen=True)
class DataConfig(Checked):
    """Which images."""

    section: ClassVar[str] = "data"
    name: str = option("digits", "data set: a known name, an Atari game, or a name that you imported")
    root: str = option("data", "folder that holds prepared data sets")
    source: str | None = option(None, "folder of parquet files in the hub's layout; none = the Hugging Face hub")
    size: int = option(0, "height and width in pixels for sources of mixed sizes; 0 = the data set's own", least=0)
    frames: int = option(60_000, "frames to collect where the data set is an Atari game (2.3: 60,000)", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not DATA_NAME.fullmatch(self.name):
            hint = "; a folder of images gets a name by: python -m vqvae_core.data import DIR --name NAME"
            raise ValueError(
                f"data.name is {self.name!r}; allowed are letters, digits, '_', '-' and '.'{hint * ('/' in self.name)}"
            )
        if self.size % 4:
            raise ValueError(
                f"data.size is {self.size}; allowed is 0 or a multiple of 4, the factor by which the encoder shrinks"
            )


@dataclass(frozen=True)
class ImageModelConfig(Checked):
    """What all models of images have in common: the convolutions, and the likelihood that prices an image."""

    section: ClassVar[str] = "model"
    hidden: int = option(256, "channels of every convolution", least=1)
    residual_blocks: int = option(2, "residual blocks in the encoder, and as many in the decoder", least=0)
    batch_norm: bool = option(False, "batch normalisation after each convolution but the last")
    output: str = option("tanh", "last activation of the decoder, where it answers a mean", choices=("tanh", "linear"))
    likelihood: str = option(
        "logistic",
        "how an image is priced: discretised logistic or Gaussian, 256-way softmax, mixture of discretised logistics",
        choices=("logistic", "gaussian", "categorical", "mixture"),
    )
    scale: str = option(
        "fitted",
        "of a logistic or gaussian: fitted after training on squared errors, or learned, one or one a channel",
        choices=("fitted", "global", "channel"),
    )
    mixture_components: int = option(5, "logistics in a mixture", least=1)

    @property
    def trains_on_errors(self) -> bool:
        """Whether training minimises squared errors, as in the report, and not the likelihood's own bits."""
        return self.scale == "fitted" and self.likelihood in ("logistic", "gaussian")


@dataclass(frozen=True)
class VQVAEConfig(ImageModelConfig):
    """A VQ-VAE as in Section 2 of Kumar, Deleu, Racah (2018)."""

    type: ClassVar[str] = "vqvae"
    num_codes: int = option(512, "K, entries of a codebook", least=2)
    code_dim: int = option(256, "D, dimensions of one entry", least=1)
    codes_per_position: int = option(1, "G, codes at each position of the latent map, each with its codebook", least=1)
    beta: float = option(1.0, "weight of the commitment loss, beta in Equation 6", least=0)
    quantizer: str = option(
        "gradient",
        "how the codebook learns: Equation 6's second term, moving averages, not at all; fsq = a grid and no codebook",
        choices=("gradient", "ema", "frozen", "fsq"),
    )
    codebook_init: str = option(
        "uniform",
        "first codebook: U(-1/K, 1/K), N(0, 1), encoder outputs drawn from the first batch, or their k-means",
        choices=("uniform", "normal", "data", "kmeans"),
    )
    ema_decay: float = option(
        0.99, "decay per step of the moving averages (usage, and the ema codebook)", above=0, below=1
    )
    restart_below: float = option(
        0.0, "a code used less than this share of an even use is drawn anew from the batch; 0 = never", least=0, below=1
    )
    residual: bool = option(
        False, "each further code of a position codes what the ones before left, not other channels"
    )
    projected_dim: int = option(0, "dimensions that vectors are projected to where codes are looked up; 0 = D", least=0)
    normalize: bool = option(False, "vectors and codes are divided by their l2 norm before the look-up")
    fsq_levels: str = option("8,8,8", "levels of each of FSQ's dimensions; their product is K")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantizer == "fsq":
            levels = fsq_levels(self)
            if math.prod(levels) != self.num_codes:
                raise ValueError(
                    f"model.fsq_levels is {self.fsq_levels!r}; allowed are levels whose product is "
                    f"model.num_codes = {self.num_codes}"
                )
            for name in ("restart_below", "residual", "projected_dim", "normalize"):
                if getattr(self, name):
                    none = "false" if isinstance(getattr(self, name), bool) else "0"
                    raise ValueError(
                        f"model.{name} is {getattr(self, name)}; allowed is {none} where model.quantizer is fsq"
                    )
        if self.quantizer == "frozen" and self.restart_below:
            raise ValueError(
                f"model.restart_below is {self.restart_below}; allowed is 0 where model.quantizer is frozen"
            )

    @property
    def latent_channels(self) -> int:
        """Channels between encoder and quantiser, and between quantiser and decoder."""
        return self.code_dim * (1 if self.residual else self.codes_per_position)


MOST_LEVELS = 1000  # FSQ's slack of 1e-3 at the ends would round to a level outside, were they more


def fsq_levels(config: VQVAEConfig) -> list[int]:
    """``"8,8,8"`` -> ``[8, 8, 8]``; ``ValueError`` when it is no such list."""
    levels = [int(text) if text.strip().isdecimal() else 0 for text in config.fsq_levels.split(",")]
    if min(levels) < 2 or max(levels) > MOST_LEVELS:
        allowed = f"allowed are integers >= 2 and <= {MOST_LEVELS} with commas between"
        raise ValueError(f"model.fsq_levels is {config.fsq_levels!r}; {allowed}")
    return levels


@dataclass(frozen=True)
class VAEConfig(ImageModelConfig):
    """A VAE with a Gaussian latent (Kingma and Welling 2014) between the same encoder and decoder."""

    type: ClassVar[str] = "vae"
    latent_dim: int = option(128, "dimensions of the latent vector; of each position's, where it is a map", least=1)
    latent_map: bool = option(False, "a vector at each position of the encoder's map, instead of one for the image")


@dataclass(frozen=True)
class CategoricalConfig(ImageModelConfig):
    """What models with a distribution over the codes at every position have in common.

    Their objective needs the likelihood itself, where others can do with squared errors.
    """

    likelihood: str = option(
        "categorical",
        "how an image is priced: discretised logistic or Gaussian, 256-way softmax, mixture of discretised logistics",
        choices=("logistic", "gaussian", "categorical", "mixture"),
    )
    scale: str = option(
        "global", "of a logistic or gaussian, learned: one, or one a channel", choices=("global", "channel")
    )
    num_codes: int = option(512, "K, codes to choose from", least=2)
    code_dim: int = option(256, "D, dimensions of the vector that stands for a code", least=1)
    codes_per_position: int = option(1, "G, codes at each position of the latent map, each with its table", least=1)


@dataclass(frozen=True)
class VIMCOConfig(CategoricalConfig):
    """Codes drawn from the encoder's distribution, trained on the bound of several samples (Mnih and Rezende 2016)."""

    type: ClassVar[str] = "vimco"
    samples: int = option(
        10, "S, samples of the bound; each takes the other S - 1 for its baseline (paper: 50)", least=2
    )
    samples_at_once: int = option(0, "samples decoded together, which is what memory goes with; 0 = all", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_at_once and self.batch_norm:
            raise ValueError(
                f"model.samples_at_once is {self.samples_at_once}; allowed is 0 where model.batch_norm is true, "
                f"whose statistics are of all samples"
            )


@dataclass(frozen=True)
class DVAEConfig(CategoricalConfig):
    """Codes relaxed with Gumbel noise (Jang et al. 2017, Maddison et al. 2017), as in DALL-E's first stage."""

    type: ClassVar[str] = "dvae"
    temperature: float = option(1.0, "of the relaxation, at the beginning", above=0)
    last_temperature: float = option(0.0625, "of the relaxation, once it is annealed", above=0)
    annealed_by: float = option(
        0.5,
        "share of the budget after which the temperature is the last and the KL has its full weight",
        above=0,
        most=1,
    )
    straight_through: bool = option(False, "the decoder sees hard codes, and only their gradient is relaxed")


@dataclass(frozen=True)
class PixelCNNConfig(Checked):
    """A gated PixelCNN; the report's: 12 layers x 64 (2.1), 15 layers x 256 (2.3.1)."""

    section: ClassVar[str] = "model"
    layers: int = option(
        12, "L, gated layers; the first sees only what comes before the position that it predicts", least=1
    )
    hidden: int = option(64, "C, channels of every layer", least=1)
    first_kernel: int = option(7, "height and width of the first layer's receptive field, odd", least=3)
    kernel: int = option(3, "height and width of the other layers' receptive fields, odd", least=3)
    head: int = option(512, "channels between the last layer and the logits of a code", least=1)
    dropout: float = option(0.0, "share of a layer's gated features set to zero in training", least=0, below=1)
    null_rate: float = option(
        0.1,
        "share of training examples whose class is hidden, so that it can be left out later; 1 = always",
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first_kernel", "kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{self.section}.{name} is {getattr(self, name)}; allowed is an odd integer >= 3")


@dataclass(frozen=True)
class PriorConfig(PixelCNNConfig):
    """A gated PixelCNN over the codes of a trained VQ-VAE, dVAE or VIMCO: its learned prior."""

    type: ClassVar[str] = "prior"
    first: str = option("", "the first stage: a checkpoint, or a run's or a sweep's folder or name, of which the best")


@dataclass(frozen=True)
class HierarchyConfig(Checked):
    """A second VQ-VAE, whose data are the code maps of a trained first one, as in 2.4 of the report."""

    section: ClassVar[str] = "model"
    type: ClassVar[str] = "hierarchy"
    first: str = option("", "the first VQ-VAE: a checkpoint, or a run's or a sweep's folder or name, of which the best")
    hidden: int = option(256, "channels of the encoder's convolutions", least=1)
    residual_blocks: int = option(2, "residual blocks in the encoder", least=0)
    halvings: int = option(2, "of the map's height and width in the encoder, as far as the map allows", least=0)
    codes: int = option(
        3, "M, codes of a whole map (pooling none: of each cell of the encoder's), each with its codebook", least=1
    )
    num_codes: int = option(512, "K, entries of a codebook", least=2)
    code_dim: int = option(256, "D, dimensions of one entry", least=1)
    beta: float = option(1.0, "weight of the commitment loss, beta in Equation 6", least=0)
    quantizer: str = option(
        "gradient", "how the codebooks learn, as in a VQ-VAE", choices=("gradient", "ema", "frozen")
    )
    codebook_init: str = option(
        "uniform", "first codebooks, as in a VQ-VAE", choices=("uniform", "normal", "data", "kmeans")
    )
    restart_below: float = option(
        0.0, "a code used less than this share of an even use is drawn anew from the batch; 0 = never", least=0, below=1
    )
    pooling: str = option(
        "average",
        "how the encoder's map becomes codes: its mean (2.4), its positions weighed, or none: codes for each of them",
        choices=("average", "positions", "none"),
    )
    condition: str = option(
        "vector",
        "what the decoder's layers get of the codes: one bias for all positions (2.4), or a map with one for each",
        choices=("vector", "map"),
    )
    layers: int = option(15, "gated layers of the PixelCNN decoder", least=1)
    decoder_hidden: int = option(16, "channels of the PixelCNN decoder's layers", least=1)
    kernel: int = option(5, "height and width of its layers' receptive fields, odd", least=3)
    head: int = option(512, "channels between its last layer and the logits of a code", least=1)
    dropout: float = option(0.0, "share of a layer's gated features set to zero in training", least=0, below=1)
    rare_weight: float = option(
        0.0,
        "the loss of a first-stage code weighs its share of train to the power of minus this; 0 = alike",
        least=0,
    )
    pictures: int = option(
        64, "validation maps that each evaluation decodes again, to see what is left of the foreground", least=1
    )

    @property
    def decoder(self) -> PixelCNNConfig:
        """The PixelCNN decoder's own configuration."""
        return PixelCNNConfig(
            layers=self.layers,
            hidden=self.decoder_hidden,
            first_kernel=self.kernel,
            kernel=self.kernel,
            head=self.head,
            dropout=self.dropout,
            null_rate=1.0,
        )

    @property
    def quantization(self) -> VQVAEConfig:
        """The quantiser's own configuration."""
        return VQVAEConfig(
            num_codes=self.num_codes,
            code_dim=self.code_dim,
            codes_per_position=self.codes,
            quantizer=self.quantizer,
            codebook_init=self.codebook_init,
            restart_below=self.restart_below,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel is {self.kernel}; allowed is an odd integer >= 3")
        _ = self.quantization  # checks what its fields may be together


SecondStageConfig = PriorConfig | HierarchyConfig  # those that stand on a trained first stage
ModelConfig = VQVAEConfig | VAEConfig | VIMCOConfig | DVAEConfig | SecondStageConfig


@dataclass(frozen=True)
class TrainConfig(Checked):
    """How it is trained; progress is counted in images seen."""

    section: ClassVar[str] = "train"
    images: int = option(1_000_000, "images to train on in all", least=1)
    batch_size: int = option(32, "images in one optimiser step, over all workers", least=1)
    accumulate: int = option(1, "parts that a step is cut into so that it fits into memory (2.3.1: 8)", least=1)
    lr: float = option(3e-4, "learning rate of Adam", above=0)
    grad_clip: float = option(0.0, "largest norm of a step's gradient; 0 = no limit", least=0)
    eval_every: int = option(0, "images between two evaluations; 0 = an eighth of the budget", least=0)
    eval_batch: int = option(256, "images in one evaluation batch of one worker", least=1)
    calibration_images: int = option(
        1000, "training images on which the decoder's scale and the unigram prior are fitted", least=1
    )
    precision: str = option(
        "auto",
        "arithmetic of the convolutions; auto = bfloat16 where the hardware gains by it and the model is wide enough",
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = option("auto", "auto = the GPU when there is one", choices=("auto", "cpu", "cuda"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.accumulate is {self.accumulate}; allowed is a divisor of train.batch_size = {self.batch_size}"
            )

    @property
    def report_interval(self) -> int:
        """Images between two reports."""
        return self.eval_every or max(1, -(-self.images // 8))


@dataclass(frozen=True)
class Experiment(Checked):
    """One training run, entirely."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    seed: int = option(0, "seed of the weights, the data order and every other random choice", least=0)
