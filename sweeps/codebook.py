"""How many codes, of how many dimensions, and how many of them at each position?

Run:     python sweeps/codebook.py --dataset cifar10 --trials 30 --images 200000
Asked:   the report used K 512 and D 256 (64 for Mini-ImageNet) with one code per position; the original paper's 4.67
         bits/dim on CIFAR-10 come from ten codes per position (8 x 8 x 10)
"""

from sweeps._launch import launch
from sweeps._space import Sweep, choice

sweep = Sweep(
    name="codebook",
    question="How should a budget of codes be spent: more of them, longer ones, or several per position?",
    space={
        "model.num_codes": choice(64, 128, 256, 512, 1024),
        "model.code_dim": choice(4, 16, 64, 256),
        "model.codes_per_position": choice(1, 2, 4, 10),
    },
)

if __name__ == "__main__":
    launch(sweep)
