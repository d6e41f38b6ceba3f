import io
import json

import numpy as np
import pytest
from PIL import Image

from atari_collect.archive import Archive
from atari_collect.export import export
from vqvae_core.data import open_dataset


def actions_of(folder, episode):
    archive = Archive(folder)
    return archive.arrays(archive.manifest().episodes[episode], "actions")[0]


def test_parquet_holds_every_frame_without_loss(finished, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = export(finished, "parquet", tmp_path / "out")
    for split, count in open_dataset(finished).splits.items():
        table = parquet.read_table(out / f"data/{split}-00000-of-00001.parquet")
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert features["image"] == {"_type": "Image"} and list(features) == table.column_names
        images = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table["image"].to_pylist()]
        assert len(images) == count and np.array_equal(images, open_dataset(finished).images(split))
    rows = table.to_pylist()  # of test: episodes 2 and 14
    assert [row["episode"] for row in rows] == [2] * 12 + [14] * 12
    assert [row["step"] for row in rows] == [*range(12), *range(12)]
    assert np.array_equal([row["actions"] for row in rows[:12]], actions_of(finished, 2))
    assert np.array_equal([row["action"] for row in rows[:12]], actions_of(finished, 2)[:, -1])
    assert "  path: data/valid-*.parquet" in (out / "README.md").read_text()


def test_datasets_opens_the_parquet_with_an_image_column(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    out = export(finished, "parquet", tmp_path / "out")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == open_dataset(finished).splits
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    assert np.array_equal(np.asarray(loaded["train"][7]["image"]), open_dataset(finished).images("train")[7])


def test_npy_is_in_the_order_of_play(finished, tmp_path):
    out = export(finished, "npy", tmp_path / "out")
    arrays = {path.stem: np.load(path) for path in out.glob("*.npy")}
    assert {name: array.shape for name, array in arrays.items()} == {
        "images": (240, 84, 84, 3),
        "actions": (240, 4),
        "rewards": (240,),
        "episodes": (240,),
        "steps": (240,),
        "splits": (240,),
    }
    names = json.loads((out / "about.json").read_text())["splits"]
    for number, split in enumerate(names):
        assert np.array_equal(arrays["images"][arrays["splits"] == number], open_dataset(finished).images(split))
    assert np.array_equal(arrays["actions"][arrays["episodes"] == 3], actions_of(finished, 3))


def test_grey_images_are_exported_too(tmp_path):
    from atari_collect.dataset import make, make_recipe
    from atari_collect.resize import View

    make(tmp_path / "pong", make_recipe("pong", 30), 30, View(21, 21, True))
    out = export(tmp_path / "pong", "npy", tmp_path / "out")
    assert np.load(out / "images.npy").shape == (30, 21, 21, 1)


def test_minari_without_jpeg(finished, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    out = export(finished, "minari", tmp_path / "out")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
    dataset = minari.load_dataset("atari/boxing/random-v0")
    assert dataset.total_episodes == 20 and dataset.total_steps == 20 * 11
    episode = dataset[1]  # the first of valid
    assert np.array_equal(episode.observations, open_dataset(finished).images("valid")[:12])
    assert np.array_equal(episode.actions, actions_of(finished, 1)[1:])
    assert episode.truncations[-1] and not episode.terminations.any()


def test_an_export_appears_whole_or_not_at_all(collection, tmp_path):
    path = next((collection / "archive/episodes").glob("00011.zst"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"00011.zst is damaged"):
        export(collection, "npy", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(ValueError, match="is not empty"):
        export(collection, "npy", tmp_path / "mine")
