"""VIMCO (Mnih and Rezende 2016, arXiv 1602.06725): the bound of S samples, each the others' baseline."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vqvae_core.categorical import CategoricalModel
from vqvae_core.config import VIMCOConfig
from vqvae_core.posterior import Categorical, log_prob
from vqvae_core.trainable import Loss


def leave_one_out(log_weights: Tensor) -> Tensor:
    """L_S without each sample in turn: log weights (B, S) -> (B, S).

    Where sample s was left out, the geometric mean of the other weights stands for it (Equation 9 there), all in log
    space.
    """
    S = log_weights.shape[1]
    itself = torch.eye(S, dtype=torch.bool, device=log_weights.device)
    rows = log_weights[:, None].expand(-1, S, -1)  # B, sample left out, sample
    # A sum over the others, not the whole sum less one's own: minus infinity would be subtracted from itself.
    others = rows.masked_fill(itself, 0).sum(2) / (S - 1)
    return torch.where(itself, others[:, :, None], rows).logsumexp(2) - math.log(S)


def bound(log_weights: Tensor) -> Tensor:
    """L_S = log 1/S sum_s w_s: (B, S) -> (B,)."""
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])


def objective(log_joint: Tensor, log_q: Tensor) -> Tensor:
    """L_S, (B,), whose gradient is VIMCO's estimate, from log p(x, z_s) and log q(z_s | x), both (B, S).

    The gradient of L_S through the weights, and for each sample L_S less what the others would have given without it,
    times the gradient of log q (Equations 4 and 8 there). The second has no value, only a gradient.
    """
    log_weights = log_joint - log_q
    value = bound(log_weights)
    signals = (value[:, None] - leave_one_out(log_weights)).detach()
    return value + (signals * (log_q - log_q.detach())).sum(1)


class VIMCO(CategoricalModel):
    """Codes drawn from q(z | x) under a uniform prior; the encoder learns by the score function."""

    config: VIMCOConfig

    def __init__(self, config: VIMCOConfig, shape: tuple[int, int, int]) -> None:
        super().__init__(config, shape)
        self.noise = (config.samples, *self.latent_shape)

    def forward(self, images: Tensor, uniforms: Tensor) -> Loss:
        """-L_S per dimension of images (B, C, H, W) in [-1, 1]; uniform numbers (B, S, G, h, w)."""
        S, dims, num_latents = self.config.samples, math.prod(self.shape), math.prod(self.latent_shape)
        log_probs = self.log_probs(images)
        with torch.no_grad():
            posterior = Categorical(log_probs)
            z = torch.stack([posterior.sample(own) for own in uniforms.unbind(1)], 1)  # B S G h w
        log_q = torch.stack([log_prob(log_probs, own) for own in z.unbind(1)], 1)
        log_likelihood = self._log_likelihood(images, z)
        log_joint = log_likelihood - num_latents * math.log(self.num_codes)
        value = objective(log_joint, log_q)
        parts = {
            "distortion": -log_likelihood.detach().mean(1) / dims,
            "kl": (log_q.detach() - log_joint.detach() + log_likelihood.detach()).mean(1) / dims,
            "samples": value.new_full((len(images),), S),
        }
        return Loss(-value / dims, parts)

    def _log_likelihood(self, images: Tensor, z: Tensor) -> Tensor:
        """log p(x | z_s): (B, S), a few samples at a time, whose activations are computed again for the gradient."""
        S = z.shape[1]
        at_once = self.config.samples_at_once or S

        def some(z: Tensor) -> Tensor:
            count = z.shape[1]
            raw = self.raw(z.flatten(0, 1))
            nats = self.head.distortion(raw, images.repeat_interleave(count, 0)) * math.prod(self.shape)
            return -nats.unflatten(0, (-1, count))

        if at_once >= S or not torch.is_grad_enabled():
            return torch.cat([some(part) for part in z.split(at_once, 1)], 1)
        parts = [checkpoint(some, part, use_reentrant=False, preserve_rng_state=False) for part in z.split(at_once, 1)]
        return torch.cat(parts, 1)
