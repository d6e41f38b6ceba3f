"""Images as uint8 arrays on disk that every process of a machine maps: one folder a data set."""

from vqvae_core.data.folder import Dataset, SplitPlan, dataset_writer, open_dataset
from vqvae_core.data.prepare import KNOWN, prepare

__all__ = ["KNOWN", "Dataset", "SplitPlan", "dataset_writer", "open_dataset", "prepare"]
