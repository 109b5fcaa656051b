"""Data sets of one label an image are read as published; damaged ones are refused, saying why."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from regionlab.data.images import ImageError, write_image
from regionlab.data.labelled import (
    LabelledImages,
    load_cifar10,
    load_digits,
    load_labelled_folders,
    load_mnist,
    read_idx,
)
from regionlab.data.registry import list_data_sets, load_labelled

RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8)


# --- MNIST ------------------------------------------------------------------------------


def idx(array, magic=None):
    """The bytes of an idx file, written by hand."""
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write_mnist(root, images=DIGITS, labels=(5, 0, 9), *, stem="train", gz=False, dot="-"):
    root.mkdir(exist_ok=True)
    pack, end = (gzip.compress, ".gz") if gz else (bytes, "")
    labels = np.array(labels, np.uint8)
    (root / f"{stem}-images{dot}idx3-ubyte{end}").write_bytes(pack(idx(images)))
    (root / f"{stem}-labels{dot}idx1-ubyte{end}").write_bytes(pack(idx(labels)))
    return root


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_mnist_gives_images_and_labels(tmp_path, gz, dot):
    data = load_mnist(write_mnist(tmp_path / "mnist", gz=gz, dot=dot))
    np.testing.assert_array_equal(data.images, np.stack([DIGITS] * 3, axis=3))
    assert data.labels.tolist() == ["5", "0", "9"]
    assert (data.name, data.split) == ("mnist", "train")


def test_mnist_test_split_is_t10k(tmp_path):
    write_mnist(tmp_path)
    write_mnist(tmp_path, DIGITS[:1], (7,), stem="t10k")
    assert load_mnist(str(tmp_path), "test").labels.tolist() == ["7"]


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("place", ["raw", "MNIST/raw", "FashionMNIST/raw"])
def test_mnist_is_found_where_torchvision_puts_it(tmp_path, place, gz):
    (tmp_path / place).mkdir(parents=True)
    write_mnist(tmp_path / place, gz=gz)
    assert load_mnist(tmp_path).labels.tolist() == ["5", "0", "9"]


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("dots", ["--", "..", "-."])
def test_mnist_is_found_in_folders_called_like_its_files(tmp_path, gz, dots):
    write_mnist(tmp_path / "flat", gz=gz, dot=dots[1])
    for file in (tmp_path / "flat").iterdir():
        folder = file.name.removesuffix(".gz").replace(dots[1] + "idx", dots[0] + "idx")
        (tmp_path / "root" / folder).mkdir(parents=True)
        file.rename(tmp_path / "root" / folder / file.name)
    assert load_mnist(tmp_path / "root").labels.tolist() == ["5", "0", "9"]


def test_several_sets_like_mnist_are_told_apart(tmp_path):
    for name in ("KMNIST", "MNIST"):
        (tmp_path / name / "raw").mkdir(parents=True)
        write_mnist(tmp_path / name / "raw")
    with pytest.raises(ValueError, match="several data sets in .*: KMNIST/raw/.*, MNIST/raw/"):
        load_mnist(tmp_path)
    assert len(load_mnist(tmp_path / "MNIST")) == 3


def test_mnist_channels_share_their_memory(tmp_path):
    assert load_mnist(write_mnist(tmp_path)).images.strides[3] == 0


def test_mnist_without_files_says_what_it_looked_for_and_found(tmp_path):
    (tmp_path / "mnist.npz").touch()
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(tmp_path)
    for part in ("train-images-idx3-ubyte.gz", "mnist.npz", "yann.lecun.com"):
        assert part in str(caught.value)


def test_mnist_in_a_missing_folder_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        load_mnist(tmp_path / "nowhere")


def test_counts_of_images_and_labels_must_agree(tmp_path):
    with pytest.raises(ValueError, match="holds 3 images, train-labels-idx1-ubyte 2 labels"):
        load_mnist(write_mnist(tmp_path, labels=(1, 2)))


def test_mnist_without_digits_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train holds no images"):
        load_mnist(write_mnist(tmp_path, DIGITS[:0], ()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda good: good[:-1],
            r"cut short .* \(3, 28, 28\), which takes 2368 bytes.* holds 2367",
        ),
        (lambda good: good + b"\0", "holds 2369"),
        (lambda good: good[:9], "cut short"),
        (lambda good: b"", "0x00000000, not 0x00000803"),
        (lambda good: b"\0\0\x08", "0x00000008, not 0x00000803"),
        (lambda good: idx(DIGITS, magic=0x0D03), "0x00000d03, not 0x00000803"),
        (lambda good: idx(DIGITS[0]), "0x00000802, not 0x00000803"),
        (lambda good: gzip.compress(good), "0x1f8b"),
    ],
    ids=["short", "long", "header", "empty", "stub", "floats", "two axes", "packed"],
)
def test_damaged_idx_is_explained(tmp_path, damage, message):
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(damage(idx(DIGITS)))
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(file, ndim=3)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("data", [gzip.compress(idx(DIGITS))[:-900], b"\x1f\x8bno", b"no gzip"])
def test_damaged_gzip_is_explained(tmp_path, data):
    (tmp_path / "a.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.gz is cut short or damaged"):
        read_idx(tmp_path / "a.gz", ndim=3)


# --- CIFAR-10 ---------------------------------------------------------------------------

CLASSES = ["airplane", "automobile", "bird"]


def write_batch(path, count, labels=None, **changes):
    """A batch as published: a dict with bytes keys, pixels channel by channel."""
    path.parent.mkdir(exist_ok=True)
    labels = [i % 3 for i in range(count)] if labels is None else labels
    batch = {
        b"batch_label": b"training batch 1 of 5",
        b"labels": labels,
        b"data": RNG.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [b"leptodactylus_pentadactylus_s_000004.png"] * count,
    } | {key.encode(): value for key, value in changes.items()}
    path.write_bytes(pickle.dumps(batch, protocol=2))
    return batch[b"data"]


def write_cifar10(root, count=2):
    base = root / "cifar-10-batches-py"
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    data = [write_batch(base / name, count) for name in names]
    meta = {b"label_names": [c.encode() for c in CLASSES], b"num_vis": 3072}
    (base / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return data


def test_cifar10_gives_all_training_batches_in_order(tmp_path):
    data = write_cifar10(tmp_path)
    train = load_cifar10(tmp_path)
    assert train.labels.tolist() == ["airplane", "automobile"] * 5
    for i, row in enumerate(np.concatenate(data[:5])):
        red, green, blue = row[:1024], row[1024:2048], row[2048:]
        np.testing.assert_array_equal(
            train.images[i, 3, 4], [c[3 * 32 + 4] for c in (red, green, blue)]
        )
        np.testing.assert_array_equal(train.images[i, ..., 2], blue.reshape(32, 32))


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "cifar-10-python", "."])
def test_cifar10_is_found_as_archives_unpack_it(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    write_cifar10(tmp_path / place)
    assert len(load_cifar10(tmp_path)) == 10


def test_cifar10_test_batch_is_the_test_split(tmp_path):
    data = write_cifar10(tmp_path)
    test = load_cifar10(tmp_path / "cifar-10-batches-py", "test")
    np.testing.assert_array_equal(test.images[..., 0].reshape(2, -1), data[5][:, :1024])


def test_pickle_as_python_2_wrote_it_is_read(tmp_path):
    """CIFAR-10 comes in Python 2's own form: text as raw bytes, numpy by its old module."""
    write_cifar10(tmp_path)
    data = np.arange(3072, dtype=np.uint8)
    text = (
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
        b"q\x03K\x00\x85U\x01b\x87Rq\x04(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00"
        + data.tobytes()
        + b"tbU\x06labels]K\x02au."
    )  # fmt: skip
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(text)
    assert pickle.loads(text, encoding="bytes")[b"labels"] == [2]  # a real pickle
    test = load_cifar10(tmp_path, "test")
    assert test.labels.tolist() == ["bird"]
    np.testing.assert_array_equal(test.images[0, ..., 1].ravel(), data[1024:2048])


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (Attack(os.mkdir, "owned"), r"(posix|nt)\.mkdir"),
        (Attack(eval, "__import__('os').mkdir('owned')"), r"(builtins|__builtin__)\.eval"),
        (Attack(getattr, "text", "upper"), r"(builtins|__builtin__)\.getattr"),
        (Attack(np.save, "owned", [1]), r"numpy\.save"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickle_that_asks_for_code_is_refused_by_name(
    tmp_path, monkeypatch, attack, name, protocol
):
    write_cifar10(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cifar-10-batches-py/test_batch"
    file.write_bytes(pickle.dumps({b"data": attack}, protocol=protocol))
    with pytest.raises(ValueError, match=f"asks for {name}, which is no data") as caught:
        load_cifar10(tmp_path, "test")
    assert str(file) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3072), np.float32), "an array of 'f4', not of bytes"),
        (np.array([[print, len]]), "an array of 'O8', not of bytes"),
        (np.asfortranarray(np.zeros((2, 3072), np.uint8)), "not bytes, row by row"),
        (np.zeros((2, 3071), np.uint8), r"no \(n, 3072\) array data"),
        (np.zeros(3072, np.uint8), r"no \(n, 3072\) array data"),
        ([[0] * 3072] * 2, r"no \(n, 3072\) array data"),
    ],
)
def test_batch_of_other_data_is_refused(tmp_path, array, message):
    write_cifar10(tmp_path)
    write_batch(tmp_path / "cifar-10-batches-py/test_batch", 2, data=array)
    with pytest.raises(ValueError, match=rf"test_batch .*({message}|asks for)"):
        load_cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0], "holds 2 images, but 1 labels"),
        ([0, 3], r"labels outside \[0, 3\)"),
        ([0, -1], r"labels outside \[0, 3\)"),
        ([0, "1"], "no list labels of whole numbers"),
        ([0, [1]], "no list labels of whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    write_cifar10(tmp_path)
    write_batch(tmp_path / "cifar-10-batches-py/test_batch", 2, labels=labels)
    with pytest.raises(ValueError, match=message):
        load_cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    "content", [b"", b"text", pickle.dumps([1]), pickle.dumps({b"a": np.zeros(9)}, 2)[:-9]]
)
def test_damaged_batch_is_explained(tmp_path, content):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(ValueError, match="test_batch is no batch of CIFAR-10: "):
        load_cifar10(tmp_path, "test")


def write_binary_cifar10(root, count=2):
    """The binary archive: a byte for the label and 3,072 for the pixels, record by record."""
    base = root / "cifar-10-batches-bin"
    base.mkdir(parents=True)
    (base / "batches.meta.txt").write_text("\n".join([*CLASSES, "", ""]))
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    data = RNG.integers(0, 256, (len(names), count, 3072), dtype=np.uint8)
    for name, rows in zip(names, data, strict=True):
        records = [bytes([i % 3]) + row.tobytes() for i, row in enumerate(rows)]
        (base / name).write_bytes(b"".join(records))
    return data


@pytest.mark.parametrize("place", [".", "cifar-10-binary"])
def test_cifar10_is_read_from_its_binary_archive(tmp_path, place):
    data = write_binary_cifar10(tmp_path / place)
    train, test = load_cifar10(tmp_path), load_cifar10(tmp_path, "test")
    assert train.labels.tolist() == ["airplane", "automobile"] * 5
    planes = np.concatenate(data[:5]).reshape(10, 3, 32, 32)
    for channel in range(3):
        np.testing.assert_array_equal(train.images[..., channel], planes[:, channel])
    np.testing.assert_array_equal(test.images[..., 0].reshape(2, -1), data[5][:, :1024])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cut short"), (bytes(3072), "cut short: 3072 bytes"), (b"\3" * 3073, r"\[0, 3\)")],
)
def test_damaged_binary_batch_is_explained(tmp_path, content, message):
    write_binary_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"test_batch\.bin .*{message}"):
        load_cifar10(tmp_path, "test")


def test_missing_batch_is_named(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py/data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match=r"no batch data_batch_4 .*cs\.toronto\.edu"):
        load_cifar10(tmp_path)


def test_cifar10_without_files_says_what_it_looked_for_and_found(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    with pytest.raises(FileNotFoundError) as caught:
        load_cifar10(tmp_path)
    for part in ("batches.meta", "train/", "cifar-10-python.tar.gz", "cs.toronto.edu"):
        assert part in str(caught.value)


def test_cifar10_as_folders_gives_paths(tmp_path):
    write_folders(tmp_path / "cifar", "train/cat/0000.png", "train/dog/0000.png", "test/cat/1.png")
    train = load_cifar10(tmp_path / "cifar")
    assert train.images == [tmp_path / "cifar/train" / p for p in ("cat/0000.png", "dog/0000.png")]
    assert train.labels.tolist() == ["cat", "dog"]
    assert (train.name, train.split) == ("cifar", "train")
    assert train.read(0).shape == (2, 3, 3)


def test_cifar10_as_folders_of_other_names_is_found(tmp_path):
    write_folders(tmp_path, "Train/cat/0.png", "Test/cat/1.png", "Test/dog/2.png")
    assert load_cifar10(tmp_path, "test").labels.tolist() == ["cat", "dog"]


# --- folders and digits -----------------------------------------------------------------


def write_folders(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, np.zeros((2, 3, 3), np.uint8))
    return root


def test_without_split_folders_every_fifth_picture_of_a_class_is_test(tmp_path):
    write_folders(
        tmp_path, *(f"cat/{i:02d}.png" for i in range(11)), *(f"dog/{i}.png" for i in "123456")
    )
    train, test = (load_labelled_folders(tmp_path, split) for split in ("train", "test"))
    assert [path.relative_to(tmp_path).as_posix() for path in test.images] == [
        "cat/04.png", "cat/09.png", "dog/5.png",
    ]  # fmt: skip
    assert not {*train.images} & {*test.images}
    assert len(train) + len(test) == 17


def test_class_named_train_is_no_split(tmp_path):
    write_folders(tmp_path, *(f"{name}/{i}.png" for name in ("train", "bus") for i in range(5)))
    assert load_labelled_folders(tmp_path).classes == ["bus", "train"]


def test_split_without_folder_is_missed_where_the_other_is_there(tmp_path):
    write_folders(tmp_path, "train/cat/0.png")
    with pytest.raises(FileNotFoundError, match="test"):
        load_labelled_folders(tmp_path, "test")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAINING", "testing"),
        ("training_set/training_set", "test_set/test_set"),
        ("train", "val"),
        ("train", "Valid"),
        ("training", "validation"),
    ],
)
def test_split_folders_are_known_by_their_usual_names(tmp_path, train, test):
    write_folders(
        tmp_path, *(f"{place}/{c}/{i}.png" for place in (train, test) for c in "ab" for i in "12")
    )
    (tmp_path / "README.txt").touch()
    for split, place in (("train", train), ("test", test)):
        data = load_labelled_folders(tmp_path, split)
        expected = [tmp_path / place / f"{c}/{i}.png" for c in "ab" for i in "12"]
        assert data.images == expected
        assert data.classes == ["a", "b"]
    assert data.split == ("val" if test.lower().startswith("val") else "test")


def test_validation_pictures_are_neither_train_nor_test(tmp_path):
    write_folders(tmp_path, *(f"{place}/a/1.png" for place in ("train", "val", "test")))
    for split in ("train", "test"):
        data = load_labelled_folders(tmp_path, split)
        assert data.images == [tmp_path / split / "a/1.png"]
        assert data.split == split


def test_split_without_folder_is_told_with_the_folders_there(tmp_path):
    write_folders(tmp_path, "Test/a/1.png", "valid/a/1.png")
    with pytest.raises(FileNotFoundError, match=r"split 'train' in .*: there are Test, valid"):
        load_labelled_folders(tmp_path)


def test_split_folders_without_classes_are_refused(tmp_path):
    write_folders(tmp_path, "Train/1.png", "Test/2.png")
    with pytest.raises(
        ValueError, match=r"folders of splits \(Test, Train\), but no folder of a class"
    ):
        load_labelled_folders(tmp_path)


def test_class_of_trains_with_folders_in_it_is_one_of_the_classes(tmp_path):
    write_folders(tmp_path, "train/steam/1.png", "train/2.png", "bus/1.png")
    assert load_labelled_folders(tmp_path).classes == ["bus", "train"]


def test_folders_are_not_opened_before_they_are_read(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/0.png").write_text("no picture")
    data = load_labelled_folders(tmp_path)
    with pytest.raises(ImageError, match="not an image"):
        data.read(0)


def test_digits_are_those_of_scikit_learn_in_eight_bits():
    train, test = load_digits("train"), load_digits("test")
    bundled = sklearn_datasets.load_digits()
    assert (len(train), len(test)) == (1287, 510)
    ink = np.concatenate([train.images, test.images])
    assert (ink.min(), ink.max(), len(np.unique(ink))) == (0, 255, 17)
    np.testing.assert_array_equal(ink[..., 1], np.round(bundled.images * 15.9375))
    assert [*train.labels, *test.labels] == [str(label) for label in bundled.target]


# --- the type ---------------------------------------------------------------------------


def make_data(n=6):
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
    return LabelledImages(images, np.array(list("abcabc"[:n])), "things", "train")


def test_sample_keeps_the_order_and_the_labels():
    data = make_data()
    some = data.sample(4, seed=0)
    rows = some.images[:, 0, 0, 0]
    assert len(set(rows)) == 4 and rows.tolist() == sorted(rows)
    assert some.labels.tolist() == [data.labels[row] for row in rows]
    assert data.sample(4, seed=0).labels.tolist() == some.labels.tolist()
    drawn = {tuple(data.sample(4, seed=seed).images[:, 0, 0, 0]) for seed in range(9)}
    assert len(drawn) > 1


@pytest.mark.parametrize("count", [0, 6, 99])
def test_sample_of_none_or_too_many_is_everything(count):
    assert len(make_data().sample(count, seed=0)) == 6


def test_sample_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        make_data().sample(-1, seed=0)


def test_paths_are_taken_like_arrays(tmp_path):
    data = LabelledImages([tmp_path / "a", tmp_path / "b"], np.array(["x", "y"]), "p", "test")
    assert data.take(np.array([1, 0])).images == [tmp_path / "b", tmp_path / "a"]
    assert data.take(np.array([1, 0])).labels.tolist() == ["y", "x"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((0, 2, 2, 3), np.uint8), [], "holds no images"),
        (np.zeros((2, 2, 2, 3), np.uint8), ["a"], "for 2 images, got "),
        (np.zeros((2, 2, 2, 3), np.uint8), [1, 2], "one text a label"),
        (np.zeros((2, 2, 2), np.uint8), ["a", "b"], r"\(n, H, W, 3\) uint8"),
        (np.zeros((2, 2, 2, 3)), ["a", "b"], "uint8, got .* float64"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        LabelledImages(images, np.array(labels), "things", "train")


def test_encoder_takes_labelled_images(tmp_path, encoder):
    data = load_mnist(write_mnist(tmp_path))
    vectors = encoder.encode_images(data.images)
    np.testing.assert_allclose(
        vectors, encoder.encode_images(np.ascontiguousarray(data.images)), atol=1e-6
    )
    assert vectors.shape == (3, encoder.dim)


# --- by name ----------------------------------------------------------------------------


def test_labelled_data_is_loaded_by_kind(tmp_path):
    write_folders(tmp_path, "cat/0.png")
    assert len(load_labelled("classes", tmp_path)) == 1
    assert len(load_labelled("digits", "", split="test")) == 510


@pytest.mark.parametrize("kind", ["mnist", "cifar10", "classes"])
def test_data_on_disk_needs_its_root(kind):
    with pytest.raises(ValueError, match=f"{kind!r} needs root"):
        load_labelled(kind, "")


def test_unknown_kind_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'emnist'; known: digits, mnist, cifar10, classes"):
        load_labelled("emnist", tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in list_data_sets("labelled") if kind != "toybox"])
def test_unknown_split_lists_the_known_ones(tmp_path, kind):
    with pytest.raises(ValueError, match="'val'; known: train, test"):
        load_labelled(kind, tmp_path, split="val")


@pytest.mark.parametrize(
    "paths",
    [
        ["seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat"],
        ["images/train/cat", "images/train/dog", "images/test/cat"],
        ["train2017/cat", "train2017/dog", "dev/cat"],
    ],
)
def test_folders_of_splits_are_no_classes_however_they_are_called(tmp_path, paths):
    for path in paths:
        (tmp_path / path).mkdir(parents=True)
        write_image(tmp_path / path / "a.png", np.zeros((8, 8, 3), np.uint8))
    train, test = (load_labelled_folders(tmp_path, split) for split in ("train", "test"))
    assert (list(train.labels), list(test.labels)) == (["cat", "dog"], ["cat"])
