"""Which batch size, each with the learning rate that goes with it?

Run:     python sweeps/batch_size.py --dataset mnist --trials 20 --images 200000
Asked:   the report (2.1) found that 32 converged much faster than the original paper's 128, at another learning rate
Method:  Adam's rate goes with the square root of the batch (Malladi et al. 2022); the sweep varies the rate at batch 32
"""

from sweeps._launch import launch
from sweeps._space import Point, Sweep, choice, log_uniform


def with_matching_lr(point: Point) -> Point:
    """The rate at batch 32, scaled to the point's own batch."""
    batch = point["train.batch_size"]
    return {"train.batch_size": batch, "train.lr": point["lr_at_32"] * (batch / 32) ** 0.5}


sweep = Sweep(
    name="batch_size",
    question="Which batch size gives the fewest bits/dim for the same number of images?",
    space={
        "train.batch_size": choice(32, 48, 64, 96, 128),
        "lr_at_32": log_uniform(1e-4, 2e-3),
    },
    known={
        "the report": {"train.batch_size": 32, "lr_at_32": 3e-4},
        "the original paper": {"train.batch_size": 128, "lr_at_32": 1e-4},  # 2e-4 at 128
    },
    derive=with_matching_lr,
)

if __name__ == "__main__":
    launch(sweep)
