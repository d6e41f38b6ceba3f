"""Which commitment weight and learning rate does a VQ-VAE need?

Run:     python sweeps/beta_lr.py --dataset boxing --trials 20 --images 200000
Asked:   the report (2.1) preferred beta 1 and lr 3e-4 to the original paper's 0.25 and 2e-4, after trials by hand
"""

from sweeps._launch import launch
from sweeps._space import Sweep, log_uniform

sweep = Sweep(
    name="beta_lr",
    question="Which commitment weight beta and which learning rate give the fewest bits/dim?",
    space={
        "model.beta": log_uniform(0.05, 5.0),
        "train.lr": log_uniform(3e-5, 3e-3),
    },
)

if __name__ == "__main__":
    launch(sweep)
