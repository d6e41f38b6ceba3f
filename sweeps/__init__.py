"""Ray Tune, Ray Train, Optuna and the writing side of MLflow; a leading underscore is machinery."""

from sweeps import _environment as _environment  # before anything can import ray
