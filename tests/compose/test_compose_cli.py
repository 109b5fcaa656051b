"""The command line of composed retrieval, from end to end on small files in CIRR's layout."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from regionlab.compose import stages as composed_stages
from regionlab.compose.composers import COMPOSERS, main
from regionlab.compose.files import TrainedParts

GROUPS = {"train": 3, "val": 2, "test1": 2}
TINY = [
    "--text", "epochs=1", "--text", "batch=3", "--text", "learning_rate=1e-4",
    "--text", "amp=bf16", "--text", "checkpointing=yes", "--text", "dtype=int8",
    "--combiner", "epochs=2", "--combiner", "batch=3", "--combiner", "projection=1",
    "--combiner", "hidden=1",
]  # fmt: skip


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
def run(root, encoder_file, tmp_path_factory):
    """Run a command on the small files; trained parts go to one folder unless another is given."""
    usual = tmp_path_factory.mktemp("trained")

    def run(command, *more, data="cirr", folder=usual):
        place = ["--data", data, "--root", str(root), "--encoder", f"toyclip/{encoder_file}"]
        return main([command, *place, "--folder", str(folder), *map(str, more)])

    run.folder = usual
    return run


@pytest.fixture(scope="module")
def trained(run):
    assert run("train", *TINY) == 0
    return run.folder


# From end to end


def test_training_leaves_three_parts_curves_and_features(trained):
    files = {file.relative_to(trained).as_posix() for file in trained.rglob("*.*")}
    parts = {"composed_text", "composed_combiner", "composed_tuned_combiner"}
    assert {f"{part}.safetensors" for part in parts} <= files
    assert {f"checkpoints/{part}.{kind}" for part in parts for kind in ("pt", "json")} <= files
    assert len(list((trained / "features").glob("*.npy"))) == 2  # of train and val
    assert not list(trained.rglob("*.tmp"))


def test_training_again_goes_on_and_so_leaves_the_same_files(run, trained, capsys):
    before = {file: file.read_bytes() for file in trained.glob("*.safetensors")}
    assert run("train", *TINY) == 0
    out = capsys.readouterr().out
    assert "text: best of 1 epochs is 1, score " in out
    assert "fine_tuned_combiner: best of 2 epochs is 2, score " in out
    assert "starts over" not in out
    assert {file: file.read_bytes() for file in trained.glob("*.safetensors")} == before


def read_table(capsys):
    """Return the lines from the benchmark's own on, without those about progress."""
    lines = capsys.readouterr().out.strip().splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("<Benchmark")) :]


def test_the_ladder_is_evaluated(run, trained, capsys):
    assert run("evaluate") == 0
    head, columns, *rows = read_table(capsys)
    assert head.startswith(
        "<Benchmark cirr val, cirr: 4 queries>, weights of the words {'weighted'"
    )
    assert [row.split()[0] for row in rows] == list(COMPOSERS)
    assert columns.split() == [
        "hit@1", "hit@5", "hit@10", "hit@50", "subset_hit@1", "subset_hit@2", "subset_hit@3",
    ]  # fmt: skip
    assert rows[0].split()[10:13] == ["1.0000", "[0.1581,", "1.0000]"]  # 0.025 ** (1 / 2 groups)


def test_one_rung_needs_no_weight_and_so_no_validation_split(run, trained, capsys):
    chosen = ["--composer", "combiner", "--composer", "image"]
    assert run("evaluate", *chosen, "--validate-on", "nothing") == 0
    head, _, *rows = read_table(capsys)
    assert [row.split()[0] for row in rows] == ["combiner", "image"]
    assert "weights of the words {}" in head


def test_a_weight_may_be_given(run, trained, capsys):
    assert run("evaluate", "--composer", "slerp", "--weight", 0.25) == 0
    assert "weights of the words {'slerp': 0.25}" in capsys.readouterr().out


def test_files_for_the_server_answer_each_pair(run, trained, tmp_path, capsys):
    assert run("submit", "--out", tmp_path / "out") == 0
    files = [str(tmp_path / "out" / f"{name}.json") for name in ("recall", "recall_subset")]
    assert capsys.readouterr().out.splitlines()[-2:] == files
    for name, count in (("recall", 11), ("recall_subset", 3)):
        answers = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert (answers.pop("version"), answers.pop("metric")) == ("rc2", name)
        assert list(answers) == ["0", "1", "2", "3"]
        assert all(len(set(names)) == count for names in answers.values())
        assert "test1-0-0" not in answers["0"]


# What is refused


def check_refused(capsys, code, *parts):
    error = capsys.readouterr().err
    assert code == 2
    line = next(line for line in error.splitlines() if line.startswith("error: "))
    for part in parts:
        assert part in line
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--text", "epoch=3"], ["'epoch=3'", "known keys: seed, epochs, batch"]),
        (["--text", "epochs"], ["a setting is KEY=VALUE, got 'epochs'"]),
        (["--text", "epochs=many"], ["epochs must be a whole number, got 'many'"]),
        (["--text", "epochs=0"], ["epochs must be a whole number of at least 1, got 0"]),
        (["--text", "learning_rate=fast"], ["learning_rate must be a number, got 'fast'"]),
        (["--text", "checkpointing=perhaps"], ["must be true or false, got 'perhaps'"]),
        (["--text", "checkpointing="], ["must be true or false, got ''"]),
        (["--text", "amp=fp8"], ["unknown amp 'fp8'; known: none, bf16, fp16"]),
        (["--text", "freeze=nothing", "--text", "batch=3"], ["freeze='nothing' is in no name"]),
        (["--text", "batch=100"], ["6 triplets do not fill a batch of 100"]),
        (["--combiner", "dtype=int4"], ["dtype must be one of 'fp16', 'int8', got 'int4'"]),
        (["--combiner", "hidden=0", "--combiner", "batch=3", "--stage", "combiner"],
         ["hidden of a Combiner is a whole number from 1 up, not 0"]),
        (["--stage", "fine_tuned_combiner"], ["there is no ", "composed_text.safetensors"]),
        (["--validate-on", "nothing", "--stage", "text"], ["split 'nothing'", "train, val"]),
        (["--validate-on", "test1", "--stage", "text", "--text", "batch=3"], ["are hidden"]),
    ],
)  # fmt: skip
def test_training_names_the_value_and_what_is_allowed(run, tmp_path, capsys, options, parts):
    check_refused(capsys, run("train", *options, folder=tmp_path), *parts)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_loss_that_is_not_finite_is_told(run, tmp_path, capsys):
    options = ["--stage", "text", "--text", "learning_rate=1e30", "--text", "batch=3"]
    check_refused(capsys, run("train", *options, folder=tmp_path), "composed_text: the loss of")


def test_evaluating_before_training_says_what_to_do(run, tmp_path, capsys):
    code = run("evaluate", "--composer", "combiner", folder=tmp_path)
    check_refused(capsys, code, "there is no", "python -m regionlab.compose.composers train")


def test_a_weight_out_of_range_is_refused(run, trained, capsys):
    code = run("evaluate", "--composer", "slerp", "--weight", 2)
    check_refused(capsys, code, "slerp needs the weight of the words, in [0, 1], got 2.0")


def test_parts_trained_with_another_padding_are_refused(run, trained, capsys):
    code = run("evaluate", "--composer", "combiner", "--padding", "none")
    check_refused(capsys, code, "whose features are not those of", "padding")


def test_there_is_a_server_for_cirr_only(run, capsys):
    check_refused(capsys, run("submit", data="fashioniq"), "of CIRR only, not of fashioniq")


def test_a_data_set_needs_its_folder(capsys):
    check_refused(capsys, main(["evaluate", "--data", "cirr"]), "cirr needs root, the folder")


def test_an_unknown_encoder_is_refused(capsys):
    code = main(["train", "--data", "cirr", "--root", "x", "--encoder", "RN50x5/openai"])
    check_refused(capsys, code, "unknown encoder 'RN50x5/openai'")


def test_queries_without_their_images_are_told_and_no_submission_written(
    run, trained, root, tmp_path, capsys
):
    file = root / "test1" / "test1-0-5.png"
    kept = file.rename(tmp_path / "kept.png")
    code = run("submit", "--out", tmp_path / "out")
    kept.rename(file)
    error = capsys.readouterr().err
    assert code == 2
    assert "left out test1-0-5: missing" in error
    assert "1 images of test1 left out" in error
    assert "every image must be there" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["tune"], ["train"], ["train", "--data", "mnist"], ["evaluate", "--data", "cirr", "--x"],
     ["evaluate", "--data", "cirr", "--composer", "mean"],
     ["train", "--data", "cirr", "--gallery", "union"],
     ["evaluate", "--data", "cirr", "--weight", "much"]],
)  # fmt: skip
def test_arguments_that_are_unknown_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(run, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(composed_stages, "tune_text", interrupt)
    assert run("train", *TINY, folder=tmp_path) == 130
    assert "the same command goes on from the last epoch" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["submit"]])
def test_help_names_every_option(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--data", "--folder", "--padding") if command else ("train", "evaluate", "submit"):
        assert word in shown


def test_help_needs_no_torch():
    code = (
        "import sys\n"
        "from regionlab.compose.composers import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        "sys.exit(bool({'torch', 'pandas', 'open_clip'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_module_runs_as_a_program():
    command = [sys.executable, "-m", "regionlab.compose.composers", "evaluate"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: regionlab.compose.composers evaluate" in done.stderr


def test_trained_parts_lie_where_they_are_looked_for(encoder, trained):
    for name in ("composed_text", "combiner", "fine_tuned_combiner"):
        assert TrainedParts(encoder, trained).path(name).is_file()
