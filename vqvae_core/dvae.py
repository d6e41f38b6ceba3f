"""dVAE: codes relaxed with Gumbel noise, at a temperature that falls (Jang et al. 2017; Ramesh et al. 2021).

What it is trained on is no bound of the discrete model: it is evaluated with hard samples and the exact KL.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from vqvae_core.categorical import CategoricalModel
from vqvae_core.config import DVAEConfig
from vqvae_core.image_model import Output
from vqvae_core.posterior import EDGE, kl_from_uniform


class DVAE(CategoricalModel):
    """A mixture of the table's vectors at each position, sharper as training goes on."""

    config: DVAEConfig
    anneals = True

    def __init__(self, config: DVAEConfig, shape: tuple[int, int, int]) -> None:
        super().__init__(config, shape)
        self.noise = (*self.latent_shape, config.num_codes)
        self.before_step(0.0)

    def before_step(self, progress: float) -> None:
        """Temperature, falling by equal factors, and weight of the KL, rising evenly, at a share of the budget."""
        share = min(1.0, progress / self.config.annealed_by)
        first, last = self.config.temperature, self.config.last_temperature
        self.temperature = first * (last / first) ** share
        self.kl_weight = share

    def relax(self, log_probs: Tensor, uniforms: Tensor) -> Tensor:
        """Weights (B, G, h, w, K) of the codes: softmax((log q + Gumbel noise) / temperature)."""
        gumbel = -(-uniforms.clamp(EDGE, 1 - EDGE).log()).log()
        weights = ((log_probs + gumbel) / self.temperature).softmax(-1)
        if not self.config.straight_through:
            return weights
        hard = F.one_hot(weights.argmax(-1), self.num_codes).to(weights.dtype)
        return hard + (weights - weights.detach())

    def forward(self, images: Tensor, uniforms: Tensor) -> Output:
        """Distortion of the relaxed codes plus weighted exact KL, per dimension; uniform numbers (B, G, h, w, K)."""
        log_probs = self.log_probs(images)
        raw = self.decoder(self.mix(self.relax(log_probs, uniforms)))
        kl = kl_from_uniform(log_probs) / math.prod(self.shape)
        schedule = {
            "temperature": kl.new_full(kl.shape, self.temperature),
            "kl_weight": kl.new_full(kl.shape, self.kl_weight),
        }
        return self.output(raw, images, {"kl": kl, **schedule}, self.kl_weight * kl)
