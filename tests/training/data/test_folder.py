"""A folder of images: what counts as one, which are bad, how they are cut, and that a killed preparation goes on."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training.data.pictures import colour, colours_of, encoded, picture, write_folder

from sweep.studies import Data, Recipe
from sweep.training.data import cache, describe, images, num_train_images, open_split, open_test, prepare
from sweep.training.data.preparation import record_of
from sweep.training.trial import Trial

FEW = {"num_train": 6, "num_validation": 2}
CLASSES = ("cat", "dog")


def stated(root, num_classes=2, **changes) -> Data:
    return Data(**{"name": "image_folder", "path": str(root), "num_classes": num_classes, **FEW, **changes})


def prepared(root, **changes):
    return prepare(stated(root, **changes), resolution=8, cache=root.parent / "cache")


def opened(files):
    return open_split(files, seed=0, **FEW)


def refusal(root, **changes) -> str:
    with pytest.raises(ValueError) as caught:
        prepared(root, **changes)
    return str(caught.value)


@pytest.fixture
def root(tmp_path):
    """Ten training and four test images of two classes."""
    folder = tmp_path / "größe ’ a b"
    write_folder(folder, "train", CLASSES, 5)
    write_folder(folder, "val", CLASSES, 2, first=100)
    return folder


def test_images_come_in_the_order_of_their_names_with_their_labels(root):
    files = prepared(root)
    split = opened(files)
    assert split.images.shape == (10, 8, 8, 3)
    assert colours_of(split.images) == [colour(number) for number in range(10)]
    assert split.labels.tolist() == [0] * 5 + [1] * 5
    tests, labels, index = open_test(files)
    assert colours_of(tests) == [colour(number) for number in range(100, 104)]
    assert (labels.tolist(), index.tolist()) == ([0, 0, 1, 1], [0, 1, 2, 3])
    assert files.source == f"{root} (test set: val/)"
    assert num_train_images(files) == 10
    assert describe(stated(root), files) == f"image folder from {root} (test set: val/), cache verified"


def test_a_second_preparation_reads_no_image(root, monkeypatch):
    files = prepared(root)
    monkeypatch.setattr(images, "_decode", None)
    assert prepared(root) == files


def test_names_links_and_what_is_hidden(tmp_path):
    root = tmp_path / "set"
    write_folder(root, "train", ["ä class", "b’s"], 3)
    other = tmp_path / "elsewhere"
    (other / "deep" / "er").mkdir(parents=True)
    picture(50).save(other / "deep" / "er" / "x.PNG")
    picture(51).save(other / "one.jpeg", quality=100)
    first = root / "train" / "ä class"
    (first / "y").symlink_to(other / "deep")
    (first / "z 名前.JPG").symlink_to(other / "one.jpeg")
    (first / "loop").symlink_to(first)
    for name in (".hidden.png", "notes.txt", "Thumbs.db", "png"):
        (first / name).write_bytes(encoded(60))
    (root / "train" / ".git").mkdir()
    (root / "train" / "README.md").write_text("no class")
    (root / "val").mkdir()
    (root / "val" / "loose.png").write_bytes(encoded(61))  # no folder of a class: no test set
    files = prepare(stated(root, num_train=4), resolution=8, cache=tmp_path / "cache")
    seen = [*open_split(files, num_train=5, num_validation=2, seed=0).images, *open_test(files)[0]]
    names = {number: colour(number) for number in (0, 1, 2, 3, 4, 5, 50, 51)}
    assert len(seen) == len(names)
    for expected in names.values():  # JPEG is lossy
        assert min(np.abs(image[0, 0].astype(int) - expected).max() for image in seen) < 6


def test_names_that_are_no_text_are_read_and_named(tmp_path):
    root = tmp_path / "set"
    write_folder(root, "train", CLASSES, 5)
    bad = os.fsencode(root / "train" / "dog") + b"/\xff.png"
    Path(os.fsdecode(bad)).write_bytes(b"")
    files = prepared(root, max_bad_share=0.5)
    assert len(files.bad_train) + len(files.bad_test) == 1


def test_test_is_preferred_to_val(root):
    write_folder(root, "test", ["dog"], 3, first=200)
    files = prepared(root)
    assert colours_of(open_test(files)[0]) == [colour(number) for number in range(200, 203)]
    assert open_test(files)[1].tolist() == [1, 1, 1]


def test_without_a_test_set_a_share_is_held_out_whatever_the_place_and_the_study(tmp_path):
    write_folder(tmp_path / "one", "train", CLASSES, 30)
    shutil.copytree(tmp_path / "one", tmp_path / "other" / "place")
    files = [
        prepare(stated(path, num_train=num), resolution=8, cache=tmp_path / f"cache {num}")
        for path, num in ((tmp_path / "one", 6), (tmp_path / "other" / "place", 20))
    ]
    held_out = [colours_of(open_test(one)[0]) for one in files]
    assert held_out[0] == held_out[1]
    trained_on = colours_of(opened(files[0]).images)
    assert (len(held_out[0]), len(trained_on)) == (6, 54)
    assert set(held_out[0]) | set(trained_on) == {colour(number) for number in range(60)}
    assert files[0].digest == files[1].digest
    assert "held out" in files[0].source


def test_the_middle_is_cropped_and_the_aspect_kept(tmp_path):
    root = tmp_path / "set"
    write_folder(root, "train", CLASSES, 5)
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    (root / "val" / "cat").mkdir(parents=True)
    Image.fromarray(wide).save(root / "val" / "cat" / "a wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(root / "val" / "cat" / "b tall.png")
    assert colours_of(open_test(prepared(root))[0]) == [(0, 255, 0)] * 2


def test_grey_is_what_was_stated_and_lies_beside_colour(root):
    files = {channels: prepared(root, num_channels=channels) for channels in (1, 3)}
    split = opened(files[1])
    assert split.images.shape == (10, 8, 8)
    assert split.images[3, 0, 0] == picture(3).convert("L").getpixel((0, 0))
    assert isinstance(split.mean, float)
    assert files[1].digest == files[3].digest
    assert opened(files[3]).images.shape == (10, 8, 8, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_other_kinds_of_images_become_rgb(root, mode):
    path = root / "train" / "cat" / "000.png"
    kind = "TIFF" if mode == "CMYK" else "PNG"
    picture(3).convert("L").convert(mode if mode != "CMYK" else "RGB").convert(mode).save(path, kind)
    files = prepared(root)
    assert files.bad_train == ()
    assert len(set(opened(files).images[0, 0, 0].tolist())) == 1  # still grey


# -- what is not as stated ---------------------------------------------------------------------------------------


def test_refusals_name_the_field_the_value_and_the_remedy(root, tmp_path, monkeypatch):
    monkeypatch.delenv("SWEEP_DATA_DIR", raising=False)
    assert "data.path is empty" in refusal(root, path="")
    assert "data.path = '/nowhere' has no folder 'train'; put the images into train/<class>/" in refusal(
        root, path="/nowhere"
    )
    assert "data.num_classes = 3, but" in refusal(root, num_classes=3)
    assert "num_train + data.num_validation = 11, but" in refusal(root, num_train=9)
    (root / "val" / "cow").mkdir()
    assert "has a class 'cow' that" in refusal(root)
    (root / "val" / "cow").rmdir()
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "notes.txt").touch()
    assert "eel' has no images (.jpg, .jpeg, .png" in refusal(root, num_classes=3)
    assert not list((tmp_path / "cache").rglob("*.npy"))


# -- bad images --------------------------------------------------------------------------------------------------


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif how == "text":
        path.write_text("no image")
    elif how == "link to nothing":
        path.symlink_to(path.parent / "gone")
    elif how == "16 bits":
        Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(path)


WHY = {
    "empty": "is empty",
    "cut": "truncated",
    "text": "is no image that Pillow can read",
    "link to nothing": "No such file",
    "16 bits": "has more than 8 bits a pixel",
}


@pytest.mark.parametrize("how", WHY)
def test_a_bad_image_is_named_and_left_out(root, how):
    spoil(root / "train" / "cat" / "002.png", how)
    files = prepared(root, max_bad_share=0.1)
    assert (files.bad_train, files.bad_test) == ((2,), ())
    record = json.loads(record_of(files.train_images).read_text())
    assert record["num_bad"] == 1
    (named,) = record["bad"]
    assert (named["row"], named["name"]) == (2, "train/cat/002.png")
    assert WHY[how] in named["why"]
    split = open_split(files, num_train=7, num_validation=2, seed=0)
    assert sorted([*split.train, *split.validation]) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert not split.images[2].any()
    assert num_train_images(files) == 9
    said = describe(stated(root), files)
    assert said.endswith("1 bad image left out, named in "
                         f"{record_of(files.train_images)} and test-images-8.bad.json")  # fmt: skip
    assert prepared(root, max_bad_share=0.1) == files


def test_bad_test_images_do_not_count(root):
    spoil(root / "val" / "dog" / "003.png", "cut")
    files = prepared(root, max_bad_share=0.1)
    assert open_test(files)[2].tolist() == [0, 1, 2]


def test_too_many_bad_images_are_refused_with_the_first_few(root):
    for number in range(4):
        spoil(root / "train" / "cat" / f"{number:03d}.png", "empty")
    said = refusal(root, max_bad_share=0.2)
    assert "data.max_bad_share = 0.2, but 4 or more of 14 images cannot be used" in said
    assert "train/cat/000.png (is empty), train/cat/001.png (is empty), train/cat/002.png (is empty), …" in said
    assert "raise data.max_bad_share" in said
    assert len(prepared(root, num_train=4, max_bad_share=0.3).bad_train) == 4
    assert "data.max_bad_share = 0.2" in refusal(
        root, num_train=4, max_bad_share=0.2
    )  # also where the arrays are there
    assert "num_train + data.num_validation = 8, but" in refusal(root, max_bad_share=0.3)


def test_no_bad_image_at_all_may_be_asked_for(root):
    assert prepared(root, max_bad_share=0).bad_train == ()
    spoil(root / "val" / "cat" / "000.png", "empty")
    assert "data.max_bad_share = 0, but 1 or more of 14" in refusal(root, max_bad_share=0)


def test_a_damaged_record_has_the_images_read_again(root):
    spoil(root / "train" / "cat" / "002.png", "cut")
    files = prepared(root, max_bad_share=0.1)
    record = record_of(files.train_images)
    for content in (b"", record.read_bytes().replace(b'"row": 2', b'"row": 3')):
        record.write_bytes(content)
        assert prepared(root, max_bad_share=0.1) == files


def test_trouble_of_the_machine_is_no_bad_image(root, monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        prepared(root, max_bad_share=1)


# -- what changes, what is killed, what is damaged -------------------------------------------------------------------


def test_files_that_were_touched_are_read_again(root):
    before = prepared(root)
    os.utime(root / "train" / "cat" / "000.png", ns=(1, 1))
    after = prepared(root)
    assert after.digest == before.digest
    assert after.train_images != before.train_images
    picture(77, (30, 30)).save(root / "train" / "cat" / "000.png")
    assert prepared(root).digest != before.digest


@pytest.fixture
def chunks_of_two(monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_BYTES", 2 * 8 * 8 * 3)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names, decode = [], images._decode
    monkeypatch.setattr(images, "_decode", lambda path, num: (names.append(path.name), decode(path, num))[1])
    return names


def test_a_killed_preparation_goes_on_from_its_last_whole_chunk(root, chunks_of_two, decoded):
    spoil(root / "train" / "cat" / "001.png", "cut")
    code = f"""
import os, signal, sys
from pathlib import Path
from sweep.studies import Data
from sweep.training.data import cache, images, prepare
cache.CHUNK_BYTES, decode = {cache.CHUNK_BYTES}, images._decode
def dying(path, num):
    if path.name == "007.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(path, num)
images._decode = dying
prepare(Data.model_validate_json(sys.argv[1]), resolution=8, cache=Path(sys.argv[2]))
"""
    data = stated(root, max_bad_share=0.1)
    command = [sys.executable, "-c", code, data.model_dump_json(), root.parent / "cache"]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
    files = prepared(root, max_bad_share=0.1)
    assert sorted(decoded) == ["000.png", "001.png", "002.png", "003.png", *(f"{n:03d}.png" for n in range(6, 10))]
    assert files.bad_train == (1,)  # known from before
    assert colours_of(opened(files).images) == [(0, 0, 0) if n == 1 else colour(n) for n in range(10)]


def test_a_damaged_chunk_alone_is_decoded_again(root, chunks_of_two, decoded):
    files = prepared(root)
    decoded.clear()
    with files.train_images.open("r+b") as file:
        file.seek(-3 * 8 * 8 * 3, os.SEEK_END)
        file.write(b"?")
    assert prepared(root) == files
    assert sorted(decoded) == ["006.png", "007.png"]
    assert colours_of(opened(files).images) == [colour(number) for number in range(10)]


def test_a_long_preparation_tells_how_far_it_is(root, chunks_of_two, monkeypatch):
    monkeypatch.setattr("sweep.training.data.preparation._TELL_EVERY_S", 0)
    told = []
    prepare(stated(root), resolution=8, cache=root.parent / "cache", log=told.append)
    assert len(told) == 7
    assert told[0].startswith("data: 2 of 14 images prepared at 8 pixels, ")


# -- training ----------------------------------------------------------------------------------------------------


def test_a_trial_trains_on_colour(tmp_path, network):
    root = tmp_path / "set"
    write_folder(root, "train", CLASSES, 20)
    files = prepare(stated(root, num_train=24, num_validation=8), resolution=8, cache=tmp_path / "cache")
    split = open_split(files, num_train=24, num_validation=8, seed=0)
    curves = []
    for _ in range(2):
        trial = Trial(network, Recipe(batch_size=8, crop_padding=1), split, num_epochs=1, seed=1, num_classes=2)
        (result,) = trial.run()
        curves.append((result.train_loss, result.val_loss, result.val_error_pct))
    assert curves[0] == curves[1]
    assert not result.diverged
    x_BCHW = trial.normalised(trial._images[split.train])
    assert x_BCHW.shape == (24, 3, 8, 8)
    assert x_BCHW.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x_BCHW.std((0, 2, 3)) - 1).abs().max() < 0.02
