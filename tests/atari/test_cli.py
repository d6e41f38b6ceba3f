import json

import numpy as np
import pytest
from PIL import Image

from atari_collect.__main__ import main
from atari_collect.archive import Archive
from vqvae_core.data import open_dataset


def one_error(capfd, *arguments, status=2):
    """The one line that a mistake gives."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capfd.readouterr()
    assert left.value.code == status and not out
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--game Boxin --frames 100", "did you mean Boxing"),
        ("--game Boxing --frames 2", "frames is 2; allowed is an integer >= 3"),
        ("--game Boxing --frames many", "--frames: invalid int value: 'many'"),
        ("--game Boxing --frame-skip 0", "frame_skip is 0"),
        ("--game Boxing --stickiness 1", "stickiness is 1.0"),
        ("--game Boxing --policy dance", "policy is 'dance'; allowed is random, noop, or module:function"),
        ("--game Boxing --size 84y", "'84y' is not a size; 84 and 210x160 are"),
        ("--game Boxing --size 0", "size is 0x0"),
        ("--game Boxing --kernel cubic", "invalid choice: 'cubic'"),
        ("--game Boxing --actors -1", "--actors is -1"),
        ("--game Boxing --seed -1", "seed is -1"),
        ("--game Boxing --wings 2", "unrecognized arguments: --wings 2"),
        ("--frames 100", "required: --game"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(arguments, text, tmp_path, capfd):
    assert text in one_error(capfd, *arguments.split(), "--out", str(tmp_path / "new"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["info", "verify", "preview", "export --to npy --out OUT", "render --out OUT"])
def test_a_folder_without_a_collection_is_named(command, tmp_path, capfd):
    name, *rest = command.replace("OUT", str(tmp_path / "out")).split()
    assert "has no manifest; nothing was collected there" in one_error(capfd, name, str(tmp_path / "none"), *rest)
    assert not list(tmp_path.iterdir())


def test_collect_is_the_default_command(tmp_path, capsys, finished):
    main(f"--game boxing --frames 240 --actors 0 --out {tmp_path / 'a'}".split())
    main(f"collect --game Boxing --frames 240 --actors 0 --archive-only --out {tmp_path / 'b'}".split())
    expected = Archive(finished).manifest().dataset_hash
    assert capsys.readouterr().out.count(f"dataset hash {expected}") == 2
    assert (tmp_path / "a/dataset.json").exists() and not (tmp_path / "b/dataset.json").exists()


def test_size_grey_and_kernel_are_recorded(tmp_path):
    folder = tmp_path / "pong"
    main(f"--game Pong --frames 40 --actors 0 --size 40x30 --grey --kernel nearest --out {folder}".split())
    dataset = open_dataset(folder)
    assert dataset.shape == (40, 30, 1)
    source = dataset.meta["source"]
    assert (source["height"], source["width"], source["grey"], source["kernel"]) == (40, 30, True, "nearest")


def test_info_counts(finished, capsys):
    main(["info", str(finished), "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["frames"] == 240 and figures["splits"] == {"train": 192, "valid": 24, "test": 24}
    assert figures["lengths"]["most"] == 12 and figures["game_over"] == 0
    images = np.concatenate([open_dataset(finished).images(split) for split in ("train", "valid", "test")])
    distinct = {image.tobytes() for image in images}
    assert figures["distinct"] == len(distinct) / 240
    train = {image.tobytes() for image in open_dataset(finished).images("train")}
    shared = np.mean([image.tobytes() in train for image in open_dataset(finished).images("test")])
    assert figures["also_in_train"]["test"] == shared
    main(["info", str(finished)])
    text = capsys.readouterr().out
    assert "240 frames of Boxing" in text and figures["dataset_hash"] in text and "Infinity" not in text


def test_verify_says_what_was_checked(finished, capsys):
    main(["verify", str(finished), "--episodes", "2"])
    assert "20 episodes and 6 arrays hold their checksums; episodes" in capsys.readouterr().out


def test_preview_draws_the_frames(finished, tmp_path, capsys):
    main(["preview", str(finished), "--out", str(tmp_path)])
    sheet, gif = capsys.readouterr().out.split()
    image = np.asarray(Image.open(sheet))
    assert image.shape == (6 * 86 + 2, 10 * 86 + 2, 3)
    assert np.array_equal(image[2:86, 2:86], open_dataset(finished).images("train")[0])
    with Image.open(gif) as moving:
        assert moving.n_frames > 50 and moving.size == (168, 168)  # equal frames may be merged


def test_render_needs_only_manifest_and_actions(finished, tmp_path, capsys):
    few = tmp_path / "few" / "archive"
    few.mkdir(parents=True)
    for name in ("manifest.json", "actions.zst"):
        (few / name).write_bytes((finished / "archive" / name).read_bytes())
    main(["render", str(tmp_path / "few"), "--out", str(tmp_path / "new"), "--size", "42", "--grey"])
    assert Archive(finished).manifest().dataset_hash in capsys.readouterr().out
    assert open_dataset(tmp_path / "new").shape == (42, 42, 1)
    main(["render", str(finished), "--out", str(tmp_path / "same")])
    assert open_dataset(tmp_path / "same").fingerprint == open_dataset(finished).fingerprint


def test_render_finds_other_actions(collection, tmp_path, capfd):
    archive = Archive(collection)
    actions = archive.actions(archive.manifest())
    from atari_collect.shard import pack_actions

    other = [a ^ 1 if i == 2 else a for i, a in enumerate(actions)]
    (archive.root / "actions.zst").write_bytes(pack_actions(other))
    assert "episode 2 comes out as" in one_error(capfd, "render", str(collection), "--out", str(tmp_path / "new"))
    data = bytearray((archive.root / "actions.zst").read_bytes())
    data[len(data) // 2] ^= 1
    (archive.root / "actions.zst").write_bytes(data)
    assert "actions.zst is damaged" in one_error(capfd, "render", str(collection), "--out", str(tmp_path / "new2"))


def test_render_does_not_touch_another_folder(finished, tmp_path, capfd):
    (tmp_path / "mine.txt").write_text("mine")
    assert "holds something else" in one_error(capfd, "render", str(finished), "--out", str(tmp_path))


def test_help_names_the_games(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "SpaceInvaders" in text and "python -m atari_collect --game Boxing" in text
