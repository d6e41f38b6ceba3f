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
            raise ValueError(f"data.name is {self.name!r}; allowed are letters, digits, '_', '-' and '.'")
        if self.size % 4:
            raise ValueError(
                f"data.size is {self.size}; allowed is 0 or a multiple of 4, the factor by which the encoder shrinks"
            )


@dataclass(frozen=True)
class VQVAEConfig(Checked):
    """A VQ-VAE as in Section 2 of Kumar, Deleu, Racah (2018)."""

    section: ClassVar[str] = "model"
    type: ClassVar[str] = "vqvae"
    hidden: int = option(256, "channels of every convolution", least=1)
    residual_blocks: int = option(2, "residual blocks in the encoder, and as many in the decoder", least=0)
    batch_norm: bool = option(False, "batch normalisation after each convolution but the last")
    num_codes: int = option(512, "K, entries of a codebook", least=2)
    code_dim: int = option(256, "D, dimensions of one entry", least=1)
    codes_per_position: int = option(1, "G, codes at each position of the latent map, each with its codebook", least=1)
    beta: float = option(1.0, "weight of the commitment loss, beta in Equation 6", least=0)
    quantizer: str = option(
        "gradient",
        "how the codebook learns: Equation 6's second term, moving averages, or not at all",
        choices=("gradient", "ema", "frozen"),
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
    output: str = option("tanh", "last activation of the decoder", choices=("tanh", "linear"))
    likelihood: str = option(
        "logistic", "shape of the discretised likelihood that prices an image", choices=("logistic", "gaussian")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantizer == "frozen" and self.restart_below:
            raise ValueError(
                f"model.restart_below is {self.restart_below}; allowed is 0 where model.quantizer is frozen"
            )


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
    """A gated PixelCNN over the codes of a trained VQ-VAE: its learned prior."""

    type: ClassVar[str] = "prior"
    first: str = option("", "the VQ-VAE: a checkpoint, or a run's or a sweep's folder or name, of which the best")


@dataclass(frozen=True)
class HierarchyConfig(Checked):
    """A second VQ-VAE, whose data are the code maps of a trained first one, as in 2.4 of the report."""

    section: ClassVar[str] = "model"
    type: ClassVar[str] = "hierarchy"
    first: str = option("", "the first VQ-VAE: a checkpoint, or a run's or a sweep's folder or name, of which the best")
    hidden: int = option(256, "channels of the encoder's convolutions", least=1)
    residual_blocks: int = option(2, "residual blocks in the encoder", least=0)
    codes: int = option(3, "codes that a whole map is compressed to, each with its codebook", least=1)
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
        "how the encoder's map becomes vectors: its mean over all positions (2.4), or each position by its own weights",
        choices=("average", "positions"),
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


SecondStageConfig = PriorConfig | HierarchyConfig  # those that stand on a trained VQ-VAE
ModelConfig = VQVAEConfig | SecondStageConfig


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
        "arithmetic of the convolutions; auto = bfloat16 where the hardware has it and the model is wide enough",
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
