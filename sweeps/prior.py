"""How large a prior do the codes of a VQ-VAE need, and how is it trained?

Run:     python sweeps/prior.py --dataset mnist --model.first beta_lr-mnist --trials 20 --images 300000
         --model.first names the VQ-VAE: a sweep (its best trial), a run of python -m vqvae_core, or a checkpoint's
         folder. Its codes are encoded once; every trial maps the same file.
Asked:   the report took 12 layers of 64 channels for MNIST and CIFAR-10 (2.1) and 15 of 256 for larger maps (2.3.1);
         the original paper does not say. bits/dim is the VQ-VAE's distortion plus the rate under the trial's prior.
"""

from sweeps._launch import launch
from sweeps._space import Sweep, choice, integer, log_uniform

sweep = Sweep(
    name="prior",
    question="Which PixelCNN prices the codes of a fixed VQ-VAE with the fewest bits/dim?",
    model="prior",
    space={
        "model.layers": integer(3, 18, step=3),
        "model.hidden": choice(32, 64, 128, 256),
        "model.dropout": choice(0.0, 0.1, 0.3),
        "train.lr": log_uniform(1e-4, 5e-3),
    },
    known={
        "the report (2.1)": {"model.layers": 12, "model.hidden": 64, "model.dropout": 0.0, "train.lr": 1e-3},
        "the report (2.3.1)": {"model.layers": 15, "model.hidden": 256, "model.dropout": 0.0, "train.lr": 3e-4},
    },
)

if __name__ == "__main__":
    launch(sweep)
