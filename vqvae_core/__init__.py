"""PyTorch and mathematics of discrete-latent models; knows no ray, mlflow, optuna or gymnasium."""
