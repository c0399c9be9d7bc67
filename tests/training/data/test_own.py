"""Arrays of the user's own: `.npz` and Parquet, and what of them is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training.data.pictures import colour, colours_of, encoded

from sweep.studies import Data, Recipe
from sweep.training.data import cache, images, num_train_images, open_split, open_test, prepare
from sweep.training.trial import Trial

FEW = {"num_train": 12, "num_validation": 4}


def stated(path, num_classes=2, **changes) -> Data:
    return Data(**{"name": "arrays", "path": str(path), "num_classes": num_classes, **FEW, **changes})


def prepared(path, **changes):
    return prepare(stated(path, **changes), resolution=8, cache=path.parent / "cache")


def opened(files):
    return open_split(files, seed=0, **FEW)


def refusal(path, **changes) -> str:
    with pytest.raises(ValueError) as caught:
        prepared(path, **changes)
    return str(caught.value)


def pixels(num, *shape):
    return np.random.default_rng(num).integers(0, 256, (num, *shape)).astype(np.uint8)


# -- npz -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)], ids=["grey", "colour"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_a_test_set(tmp_path, shape, save):
    path = tmp_path / "größe ’ a.npz"
    save(path, train_images=pixels(20, *shape), train_labels=np.arange(20) % 2, test_images=pixels(6, *shape),
         test_labels=np.ones(6, np.int16))  # fmt: skip
    files = prepared(path, num_channels=3 if shape[2:] else 1)
    split = opened(files)
    assert np.array_equal(split.images, pixels(20, *shape))
    assert split.labels.tolist() == [0, 1] * 10
    assert np.array_equal(open_test(files)[0], pixels(6, *shape))
    assert open_test(files)[1].tolist() == [1] * 6


def test_npz_without_a_test_set_has_a_share_held_out(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=pixels(20, 8, 8, 3), labels=np.arange(20) % 2)
    files = prepared(path)
    tests, labels, _ = open_test(files)
    (rows,) = np.nonzero([any(np.array_equal(image, test) for test in tests) for image in pixels(20, 8, 8, 3)])
    assert len(rows) == len(tests) == 2
    assert labels.tolist() == (rows % 2).tolist()
    assert np.array_equal(opened(files).images, np.delete(pixels(20, 8, 8, 3), rows, axis=0))


def test_other_content_of_the_same_size_is_another_data_set(tmp_path):
    path = tmp_path / "a.npz"
    digests = set()
    for value in (1, 2):
        np.savez(path, images=np.full((20, 8, 8, 3), value, np.uint8), labels=np.arange(20) % 2)
        files = prepared(path)
        digests.add(files.digest)
        assert (opened(files).images == value).all()
    assert len(digests) == 2


def test_more_than_256_classes_have_labels_of_16_bits(tmp_path, network):
    path = tmp_path / "a.npz"
    labels = np.arange(600) % 300
    np.savez(path, train_images=pixels(600, 8, 8), train_labels=labels, test_images=pixels(4, 8, 8),
             test_labels=labels[296:300])  # fmt: skip
    files = prepared(path, num_classes=300, num_channels=1)
    split = open_split(files, num_train=64, num_validation=20, seed=0)
    assert split.labels.dtype == np.uint16
    assert np.array_equal(split.labels, labels)
    (result,) = Trial(network, Recipe(batch_size=32), split, num_epochs=1, seed=1, num_classes=300).run()
    assert not result.diverged
    assert result.val_error_pct > 50


GOOD = {"images": pixels(20, 8, 8, 3), "labels": np.arange(20) % 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": pixels(20, 8, 8, 3) / 255}, "images in .* is float64 .* must be uint8"),
        ({"images": pixels(20, 3, 8, 8)}, r"images in .* is uint8 \(20, 3, 8, 8\); it must be uint8 \(N, H, W\)"),
        ({"images": pixels(20, 8, 8)}, "data.num_channels = 3, but images in .* has 1"),
        ({"labels": np.arange(19) % 2}, r"labels in .* is int64 \(19,\); it must hold an integer for each of 20"),
        ({"labels": np.arange(20) / 2}, "labels in .* is float64"),
        ({"labels": np.arange(20) % 3}, "data.num_classes = 2, but the .* labels in .* go from 0 to 2"),
        ({"labels": np.arange(20) % 2 - 1}, "labels in .* go from -1 to 0"),
        ({"labels": np.zeros(20, int)}, "no training image in .* has the label 1"),
        ({"labels": np.array([None] * 20)}, "labels in .* is object"),
        ({"images": pixels(0, 8, 8, 3), "labels": np.zeros(0, int)}, r"images in .* is uint8 \(0, 8, 8, 3\)"),
        ({"labels": None}, "holds images; it must hold train_images"),
    ],
)
def test_npz_that_is_not_as_stated_is_refused(tmp_path, changes, message):
    path = tmp_path / "a.npz"
    np.savez(path, **{key: value for key, value in {**GOOD, **changes}.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        prepared(path)
    assert not list(tmp_path.rglob("*.npy"))


def test_files_that_are_none_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **GOOD)
    path.write_bytes(path.read_bytes()[:-50])
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"")
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"no array at all")
    assert "it is no whole .npz file" in refusal(path)
    assert "is neither an .npz file nor a .parquet file nor a folder with train*.parquet" in refusal(tmp_path / "b.npz")


# -- Parquet -------------------------------------------------------------------------------------------------------


def write_parquet(path, contents, labels, *, as_struct=False, rows=3):
    image = [{"bytes": content, "path": None} for content in contents] if as_struct else contents
    pq.write_table(pa.table({"image": image, "label": labels, "other": ["x"] * len(labels)}), path, row_group_size=rows)


def encoded_pictures(num, first=0):
    return [encoded(first + number, "PNG" if number % 2 else "BMP") for number in range(num)]


@pytest.fixture(params=[False, True], ids=["bytes", "struct"])
def as_struct(request):
    return request.param


def test_parquet_is_read_by_row_groups_and_chunks_that_do_not_fit_each_other(tmp_path, monkeypatch, as_struct):
    monkeypatch.setattr(cache, "CHUNK_BYTES", 4 * 8 * 8 * 3)
    monkeypatch.setattr("sweep.training.data.own._ROWS_AT_ONCE", 2)
    monkeypatch.setattr("sweep.training.data.own._DECODED_AT_ONCE", 3)
    path = tmp_path / "a.parquet"
    write_parquet(path, encoded_pictures(30), [number % 2 for number in range(30)], as_struct=as_struct)
    files = prepared(path)
    seen, tested = colours_of(opened(files).images), colours_of(open_test(files)[0])
    assert (len(seen), len(tested)) == (27, 3)
    assert sorted([*seen, *tested]) == sorted(colour(number) for number in range(30))
    numbers = {colour(number): number for number in range(30)}
    assert opened(files).labels.tolist() == [numbers[one] % 2 for one in seen]
    assert open_test(files)[1].tolist() == [numbers[one] % 2 for one in tested]


def test_a_folder_of_parquet_files_with_a_test_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_parquet(folder / "train-00000-of-00002.parquet", encoded_pictures(9), [0] * 9)
    write_parquet(folder / "train-00001-of-00002.parquet", encoded_pictures(9, 9), [1] * 9)
    write_parquet(folder / "validation.parquet", encoded_pictures(4, 50), [1, 0, 1, 0])
    files = prepared(folder)
    assert colours_of(opened(files).images) == [colour(number) for number in range(18)]
    assert colours_of(open_test(files)[0]) == [colour(number) for number in range(50, 54)]
    assert open_test(files)[1].tolist() == [1, 0, 1, 0]


def test_a_damaged_chunk_is_read_again_from_its_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_BYTES", 4 * 8 * 8 * 3)
    folder = tmp_path / "set"
    folder.mkdir()
    write_parquet(folder / "train.parquet", encoded_pictures(18), [0, 1] * 9)
    write_parquet(folder / "test.parquet", encoded_pictures(2, 50), [0, 1])
    files = prepared(folder)
    with files.train_images.open("r+b") as file:
        file.seek(128 + 4 * 8 * 8 * 3)
        file.write(b"?")
    decoded, decode = [], images._decode
    monkeypatch.setattr(images, "_decode", lambda content, num: (decoded.append(content), decode(content, num))[1])
    prepared(folder)
    assert set(decoded) == set(encoded_pictures(18)[4:8])
    assert colours_of(opened(files).images) == [colour(number) for number in range(18)]


def test_bad_rows_are_named_by_their_number(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    contents = encoded_pictures(20)
    contents[5], contents[7], contents[11] = b"no image", None, contents[11][:-30]
    write_parquet(folder / "train.parquet", contents, [0, 1] * 10)
    write_parquet(folder / "test.parquet", encoded_pictures(2), [0, 1])
    files = prepared(folder, max_bad_share=0.2)
    assert files.bad_train == (5, 7, 11)
    assert num_train_images(files) == 17
    assert "row 5 (is no image that Pillow can read), row 7 (is empty), row 11 (" in refusal(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"image": [encoded(0)], "labels": [0]}, "it needs image: binary"),
        ({"image": ["text"], "label": [0]}, "it needs image: binary"),
        ({"image": [{"path": "x"}], "label": [0]}, "it needs image: binary, or a struct with bytes"),
        ({"image": [encoded(0)], "label": [0.5]}, "label: an integer"),
        ({"image": [encoded(0), encoded(1)], "label": [0, None]}, "1 rows without a label"),
    ],
)
def test_parquet_that_is_not_as_stated_is_refused(tmp_path, table, message):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(table), path)
    assert message in refusal(path)


def test_parquet_that_is_cut_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, encoded_pictures(20), [0, 1] * 10)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert "cannot be read as Parquet" in refusal(path)
    path.write_bytes(
        content[:40] + bytes(len(content[40:300])) + content[300:]
    )  # the footer is right, the rows are not
    with pytest.raises(ValueError, match=r"cannot be read|max_bad_share"):
        prepared(path)
