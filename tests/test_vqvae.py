"""The report's network: its shapes, its loss, and codes that say all that the decoder needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import write_made_up
from torch import Tensor, nn

from vqvae_core.config import ImageModelConfig, VQVAEConfig
from vqvae_core.convolutions import Residual
from vqvae_core.models import build
from vqvae_core.overrides import with_overrides
from vqvae_core.presets import PRESETS
from vqvae_core.train import fit
from vqvae_core.vqvae import VQVAE

SMALL = VQVAEConfig(hidden=8, residual_blocks=1, num_codes=16, code_dim=4)

# The images of each preset's data set: what its architecture is built for.
SHAPES = {
    "digits": (8, 8, 1),
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "mini_imagenet": (128, 128, 3),
    "boxing": (84, 84, 3),
}


def model(shape: tuple[int, int, int] = (12, 8, 3), seed: int = 0, **fields: Any) -> VQVAE:
    torch.manual_seed(seed)
    return build(replace(SMALL, **fields), shape)


def images(shape: tuple[int, int, int] = (12, 8, 3), count: int = 4) -> Tensor:
    height, width, channels = shape
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 8, 3), (4, 20, 1)])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_shapes(shape: tuple[int, int, int], groups: int, batch_norm: bool) -> None:
    height, width, channels = shape
    net = model(shape, codes_per_position=groups, batch_norm=batch_norm)
    out = net(images(shape))
    assert out.mean.shape == (4, channels, height, width) and out.mean.dtype == torch.float32
    assert out.indices.shape == (4, groups, height // 4, width // 4) == (4, *net.latent_shape)
    assert net.num_latents == out.indices[0].numel()
    for term in (out.loss, out.squared_error, *out.parts.values()):
        assert term.shape == (4,)  # per image, for the caller to average


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"batch_norm": True},
        {"quantizer": "ema"},
        {"codes_per_position": 3},
        {"residual_blocks": 0},
        {"code_dim": 8},  # as many channels as the convolutions: no 1 x 1 convolution in between
    ],
)
def test_decoding_the_codes_is_the_forward_pass_exactly(fields: dict[str, Any]) -> None:
    net = model(**fields)
    net(images())  # moves batch normalisation's averages away from where they start
    net.eval()
    out = net(images())
    assert net.encode(images()).equal(out.indices)
    assert net.decode(net.encode(images())).equal(out.mean)


def test_decoding_with_a_linear_output_is_the_forward_pass_cut_to_what_images_can_be() -> None:
    net = model(output="linear").eval()
    with torch.no_grad():
        list(net.decoder.parameters())[-1].fill_(1.5)
    out = net(images())
    assert float(out.mean.detach().max()) > 1
    assert net.decode(net.encode(images())).equal(out.mean.clamp(-1, 1))


def test_the_loss_is_equation_6() -> None:
    net = model(beta=0.25)
    x = images()
    out = net(x)
    z = net.encoder(x)
    codes = net.quantizer.decode(out.indices)
    for b in range(4):
        mse = (net.decoder(codes[b : b + 1]) - x[b]).pow(2).mean()
        distance = (z[b] - codes[b]).pow(2).mean()
        torch.testing.assert_close(out.loss[b], mse + distance + 0.25 * distance)
        torch.testing.assert_close(out.squared_error[b], mse)


def test_beta_weighs_the_commitment() -> None:
    """The loss is affine in beta, and beta moves the encoder alone."""
    x = images()
    nets = {beta: model(beta=float(beta)) for beta in (0, 1, 3)}
    losses = {beta: net(x).loss for beta, net in nets.items()}
    commitment = nets[0](x).parts["commitment"]
    torch.testing.assert_close(losses[1] - losses[0], commitment)
    torch.testing.assert_close(losses[3] - losses[0], 3 * commitment)
    for loss in losses.values():
        loss.mean().backward()
    for (name, p0), p1, p3 in zip(nets[0].named_parameters(), nets[1].parameters(), nets[3].parameters(), strict=True):
        assert p0.grad is not None and p1.grad is not None and p3.grad is not None
        if name.startswith("encoder"):
            torch.testing.assert_close(p3.grad - p0.grad, 3 * (p1.grad - p0.grad), rtol=1e-4, atol=1e-7)
            assert not torch.allclose(p1.grad, p0.grad)
        else:
            assert p1.grad.equal(p0.grad)


def test_the_decoders_gradient_arrives_at_the_encoder_unchanged() -> None:
    net = model(beta=0.0)
    x = images()
    z = net.encoder(x)
    z.retain_grad()
    quantized = net.quantizer(z)
    net.decoder(quantized.vectors).sum().backward()
    leaf = quantized.vectors.detach().requires_grad_()
    net.decoder(leaf).sum().backward()
    assert z.grad is not None and leaf.grad is not None and z.grad.equal(leaf.grad)


def test_an_image_is_coded_alone() -> None:
    net = model(batch_norm=True).eval()
    x = images()
    together = net(x)
    for b in range(4):
        alone = net(x[b : b + 1])
        assert alone.indices.equal(together.indices[b : b + 1])
        torch.testing.assert_close(alone.loss, together.loss[b : b + 1])


def test_batch_normalisation_is_after_each_convolution_but_the_last() -> None:
    net = model(batch_norm=True, residual_blocks=2)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert norms == 2 + 2 * 2 + 2 * 2 + 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model().modules())
    # Where it follows, a convolution's own bias would do nothing; everywhere else there is one.
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert sum(m.bias is None for m in convolutions) == norms < len(convolutions)
    assert all(m.bias is not None for m in model().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    last = [module for module in net.decoder if not isinstance(module, nn.Tanh)][-1]
    assert isinstance(last, nn.ConvTranspose2d)


def test_the_network_is_the_reports() -> None:
    net = build(PRESETS["cifar10_vqvae"]().model, (32, 32, 3))
    strided = [m for m in net.encoder if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.stride, m.out_channels) for m in strided] == [((4, 4), (2, 2), 256)] * 2
    assert sum(isinstance(m, Residual) for m in net.encoder) == sum(isinstance(m, Residual) for m in net.decoder) == 2
    block = next(m for m in net.encoder if isinstance(m, Residual)).block
    kinds = [m for m in block if not isinstance(m, nn.Identity)]
    assert [type(m) for m in kinds] == [nn.ReLU, nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert [m.kernel_size for m in kinds if isinstance(m, nn.Conv2d)] == [(3, 3), (1, 1)]
    up = [m for m in net.decoder if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.kernel_size, m.stride, m.out_channels) for m in up] == [((4, 4), (2, 2), c) for c in (256, 3)]
    assert net.quantizer.codebook.shape == (1, 512, 256)
    assert net.num_latents == 64  # 8 x 8


@pytest.mark.parametrize("shape", [(30, 32, 3), (32, 30, 3)])
def test_images_that_do_not_shrink_evenly_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"images are {shape[1]} x {shape[0]} pixels; allowed are multiples of 4"):
        model(shape)


def test_start_is_done_once_and_only_where_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    plain, data = model(), model(codebook_init="data")
    before = [net.quantizer.codebook.detach().clone() for net in (plain, data)]
    plain.start((images(),), generator)
    data.start((images(),), generator)
    assert plain.quantizer.codebook.equal(before[0]) and not data.quantizer.codebook.equal(before[1])
    after = data.quantizer.codebook.detach().clone()
    data.start((images() / 2,), generator)
    assert data.quantizer.codebook.equal(after)


@pytest.mark.parametrize("name", [name for name, make in PRESETS.items() if isinstance(make().model, ImageModelConfig)])
def test_every_preset_takes_a_step_on_images_of_its_shape(name: str, tmp_path: Path) -> None:
    experiment = PRESETS[name]()
    dataset = write_made_up(tmp_path / experiment.data.name, SHAPES[experiment.data.name], train=4, valid=2, test=0)
    few = {"train.images": 2, "train.batch_size": 2, "train.calibration_images": 2, "train.eval_batch": 2}
    if experiment.model.type != "vqvae":  # beside the report's network, which is tried as it is, they need not be wide
        few["model.hidden"] = 16
    reports = list(fit(with_overrides(experiment, few), dataset=dataset))
    assert [report.images_seen for report in reports] == [2]
    assert 0 < reports[0].metrics["valid/bits_per_dim"] < 12
