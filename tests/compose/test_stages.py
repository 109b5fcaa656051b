"""What `regionlab compose` does, from end to end on small files in CIRR's layout."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from regionlab import RegionlabError
from regionlab.compose.composers import COMPOSERS
from regionlab.compose.files import TrainedParts
from regionlab.compose.stages import (
    Setup,
    evaluate_composers,
    make_recipe,
    train_stages,
    write_submission,
)
from regionlab.compose.training import TextRecipe

GROUPS = {"train": 3, "val": 2, "test1": 2}
TINY = {
    "text": {"epochs": "1", "batch": "3", "learning_rate": "1e-4", "amp": "bf16",
             "checkpointing": "yes", "dtype": "int8"},
    "combiner": {"epochs": 2, "batch": 3, "projection": 1, "hidden": 1},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_cirr(root, split, groups):
    """Write groups of six pictures of noise, each with two triplets; test1 hides its targets."""
    rng = np.random.default_rng(len(split))
    paths, entries = {}, []
    for group in range(groups):
        names = [f"{split}-{group}-{i}" for i in range(6)]
        paths |= {name: f"./{split}/{name}.png" for name in names}
        for a, b in ((0, 1), (2, 3)):
            target = {} if split == "test1" else {"target_hard": names[b]}
            entries.append({"pairid": len(entries), "reference": names[a], **target,
                            "caption": f"is red and has {a} dots",
                            "img_set": {"members": names}})  # fmt: skip
    (root / split).mkdir(parents=True)
    for name in paths:
        pixels = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / f"{name}.png")
    for kind, content in (("captions/cap", entries), ("image_splits/split", paths)):
        file = root / f"{kind}.rc2.{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cirr")
    for split, groups in GROUPS.items():
        write_cirr(root, split, groups)
    return root


@pytest.fixture(scope="module")
def setup(root, encoder_file, tmp_path_factory):
    """Make a setup of the small files; parts go to one folder unless another is given."""
    usual = tmp_path_factory.mktemp("trained")

    def setup(data="cirr", folder=usual, **options):
        return Setup(f"toyclip/{encoder_file}", data, root, folder=folder, **options)

    return setup


@pytest.fixture(scope="module")
def trained(setup):
    train_stages(setup(), **TINY)
    return setup().folder


# From end to end


def test_training_leaves_three_parts_curves_and_features(trained):
    files = {file.relative_to(trained).as_posix() for file in trained.rglob("*.*")}
    parts = {"composed_text", "composed_combiner", "composed_tuned_combiner"}
    assert {f"{part}.safetensors" for part in parts} <= files
    assert {f"checkpoints/{part}.{kind}" for part in parts for kind in ("pt", "json")} <= files
    assert len(list((trained / "features").glob("*.npy"))) == 2  # of train and val
    assert not list(trained.rglob("*.tmp"))


def test_training_again_goes_on_and_so_leaves_the_same_files(setup, trained, capsys):
    before = {file: file.read_bytes() for file in trained.glob("*.safetensors")}
    train_stages(setup(), **TINY)
    out = capsys.readouterr().out
    assert "text: best of 1 epochs is 1, score " in out
    assert "fine_tuned_combiner: best of 2 epochs is 2, score " in out
    assert "starts over" not in out
    assert {file: file.read_bytes() for file in trained.glob("*.safetensors")} == before


def read_table(capsys):
    """Return the lines from the benchmark's own on, without those about progress."""
    lines = capsys.readouterr().out.strip().splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("<Benchmark")) :]


def test_the_ladder_is_evaluated(setup, trained, capsys):
    table = evaluate_composers(setup())
    head, columns, *rows = read_table(capsys)
    assert head.startswith(
        "<Benchmark cirr val, cirr: 4 queries>, weights of the words {'weighted'"
    )
    assert [row.split()[0] for row in rows] == list(table.index) == list(COMPOSERS)
    assert columns.split() == [
        "hit@1", "hit@5", "hit@10", "hit@50", "subset_hit@1", "subset_hit@2", "subset_hit@3",
    ]  # fmt: skip
    assert rows[0].split()[10:13] == ["1.0000", "[0.1581,", "1.0000]"]  # 0.025 ** (1 / 2 groups)


def test_composers_without_weight_need_no_validation_split(setup, trained, capsys):
    evaluate_composers(setup(split="nothing"), ["combiner", "image"])
    head, _, *rows = read_table(capsys)
    assert [row.split()[0] for row in rows] == ["combiner", "image"]
    assert "weights of the words {}" in head


def test_a_weight_may_be_given(setup, trained, capsys):
    evaluate_composers(setup(), ["slerp"], weight=0.25)
    assert "weights of the words {'slerp': 0.25}" in capsys.readouterr().out


def test_files_for_the_server_answer_each_pair(setup, trained, tmp_path, capsys):
    written = write_submission(setup(), tmp_path / "out")
    files = [str(tmp_path / "out" / f"{name}.json") for name in ("recall", "recall_subset")]
    assert capsys.readouterr().out.splitlines()[-2:] == files == list(map(str, written))
    for name, count in (("recall", 11), ("recall_subset", 3)):
        answers = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert (answers.pop("version"), answers.pop("metric")) == ("rc2", name)
        assert list(answers) == ["0", "1", "2", "3"]
        assert all(len(set(names)) == count for names in answers.values())
        assert "test1-0-0" not in answers["0"]


# What is refused


def check_refused(parts, call, *arguments, **options):
    with pytest.raises((RegionlabError, ValueError)) as refused:
        call(*arguments, **options)
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"text": {"epoch": "3"}}, ["'epoch'", "known: seed, epochs, batch"]),
        ({"text": {"epochs": ""}}, ["epochs must be a whole number, got ''"]),
        ({"text": {"epochs": "many"}}, ["epochs must be a whole number, got 'many'"]),
        ({"text": {"epochs": "0"}}, ["epochs must be a whole number of at least 1, got 0"]),
        ({"text": {"learning_rate": "fast"}}, ["learning_rate must be a number, got 'fast'"]),
        ({"text": {"checkpointing": "perhaps"}}, ["must be true or false, got 'perhaps'"]),
        ({"text": {"checkpointing": ""}}, ["must be true or false, got ''"]),
        ({"text": {"amp": "fp8"}}, ["unknown amp 'fp8'; known: none, bf16, fp16"]),
        ({"text": {"freeze": "nothing", "batch": 3}}, ["freeze='nothing' is in no name"]),
        ({"text": {"batch": 100}}, ["6 triplets do not fill a batch of 100"]),
        ({"combiner": {"dtype": "int4"}}, ["dtype must be one of 'fp16', 'int8', got 'int4'"]),
        ({"combiner": {"hidden": 0, "batch": 3}, "stages": ["combiner"]},
         ["hidden of a Combiner is a whole number from 1 up, not 0"]),
        ({"stages": ["fine_tuned_combiner"]}, ["there is no ", "composed_text.safetensors"]),
        ({"stages": ["tune"]}, ["stage must be one of 'text', 'combiner', 'fine_tuned_combiner'"]),
        ({"split": "nothing", "stages": ["text"]}, ["split 'nothing'", "train, val"]),
        ({"split": "test1", "stages": ["text"], "text": {"batch": 3}}, ["are hidden"]),
    ],
)  # fmt: skip
def test_training_names_the_value_and_what_is_allowed(setup, tmp_path, options, parts):
    split = options.pop("split", "val")
    check_refused(parts, train_stages, setup(folder=tmp_path, split=split), **options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_loss_that_is_not_finite_is_told(setup, tmp_path):
    text = {"learning_rate": 1e30, "batch": 3}
    parts = ["composed_text: the loss of"]
    check_refused(parts, train_stages, setup(folder=tmp_path), ["text"], text=text)


def test_settings_are_converted_from_text(setup):
    recipe = make_recipe(TextRecipe(), {"epochs": "3", "checkpointing": "Yes", "seed": 2})
    assert recipe == TextRecipe(epochs=3, checkpointing=True, seed=2)


def test_evaluating_before_training_says_what_to_do(setup, tmp_path):
    parts = ["there is no", "regionlab compose train"]
    check_refused(parts, evaluate_composers, setup(folder=tmp_path), ["combiner"])


def test_a_weight_out_of_range_is_refused(setup, trained):
    parts = ["slerp needs the weight of the words, in [0, 1], got 2.0"]
    check_refused(parts, evaluate_composers, setup(), ["slerp"], weight=2.0)


def test_an_unknown_composer_is_refused(setup, trained):
    check_refused(["composer must be one of", "'mean'"], evaluate_composers, setup(), ["mean"])


def test_parts_trained_with_another_padding_are_refused(setup, trained):
    parts = ["whose features are not those of", "padding"]
    check_refused(parts, evaluate_composers, setup(padding="none"), ["combiner"])


def test_there_is_a_server_for_cirr_only(setup):
    check_refused(["of CIRR only, not of fashioniq"], write_submission, setup("fashioniq"))


def test_a_data_set_is_known_and_needs_its_folder():
    parts = ["cirr needs root, the folder"]
    check_refused(parts, evaluate_composers, Setup("toyclip", "cirr"))
    parts = ["data must be one of 'cirr', 'fashioniq', 'toybox', got 'mnist'"]
    check_refused(parts, evaluate_composers, Setup("toyclip", "mnist"))


def test_an_unknown_encoder_is_refused():
    parts = ["unknown encoder 'RN50x5/openai'"]
    check_refused(parts, train_stages, Setup("RN50x5/openai", "cirr", "x"))


def test_queries_without_their_images_are_told_and_no_submission_written(
    setup, trained, root, tmp_path, capsys
):
    file = root / "test1" / "test1-0-5.png"
    kept = file.rename(tmp_path / "kept.png")
    parts = ["every image must be there"]
    check_refused(parts, write_submission, setup(), tmp_path / "out")
    kept.rename(file)
    error = capsys.readouterr().err
    assert "left out test1-0-5: missing" in error
    assert "1 images of test1 left out" in error
    assert not (tmp_path / "out").exists()


def test_trained_parts_lie_where_they_are_looked_for(encoder, trained):
    for name in ("composed_text", "combiner", "fine_tuned_combiner"):
        assert TrainedParts(encoder, trained).path(name).is_file()
