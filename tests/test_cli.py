"""The command `regionlab`: what it prints, refuses and leaves unloaded."""

import json
import subprocess
import sys

import numpy as np
import pytest

from regionlab import search_text
from regionlab.cli import main
from regionlab.cli.search import _read_numbers
from regionlab.data.collection import load_folder
from regionlab.index.build import add_regions, build_index
from regionlab.index.index import open_index
from regionlab.models import registry
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.util import paths
from regionlab.util.errors import InputError, RegionlabError
from regionlab.util.paths import DATA
from small_pictures import write_picture

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3
)
COMMANDS = {
    "index", "update", "verify", "copy", "search", "serve", "run", "bench", "models", "train",
    "compose train", "compose evaluate", "compose submit",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(encoder, segmenter, tmp_path_factory):
    """An index of five small images, with regions."""
    root = tmp_path_factory.mktemp("command")
    for number in range(5):
        write_picture(root / "photos" / f"{number}.png", number)
    index = build_index(load_folder(root / "photos"), encoder, root / "index")
    add_regions(index, segmenter, encoder, everything=FEW)
    return root / "index"


@pytest.fixture
def ask(folder, encoder_file, capsys):
    """Return what `regionlab search INDEX ... --json` finds."""

    def ask(*words):
        name = f"toyclip/{encoder_file}"
        found = main(["search", folder, *words, "--json", "--encoder", name, "--device", "cpu"])
        printed = capsys.readouterr()
        assert found == 0, printed.err
        return json.loads(printed.out)

    return ask


def refuse(capsys, *arguments):
    """Return the sentence with which a command is refused."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


# Search


def test_words_find_what_search_text_finds(ask, folder, encoder):
    index = open_index(folder)
    expected = search_text(index, "a red star", encoder, k=3)
    found = ask("a", "red", "star", "-k", 3)
    assert [one["rank"] for one in found] == [1, 2, 3]
    assert [one["path"] for one in found] == [str(index.path(row)) for row in expected.rows[0]]
    assert np.allclose([one["score"] for one in found], expected.scores[0], atol=1e-3)


def test_an_image_finds_itself_unless_it_is_left_out(ask, folder):
    image = folder.parent / "photos" / "3.png"
    assert ask("--image", image)[0]["path"] == str(image)
    others = ask("--image", image, "--exclude-self")
    assert len(others) == 4 and str(image) not in [one["path"] for one in others]


@pytest.mark.parametrize(
    "marks",
    [["--box", "2,2,20,20"], ["--points", "5,5 20,20,0"], ["--point", "5,5", "--box", "8,8,30,20"]],
)
def test_objects_in_an_image_are_looked_for_among_the_regions(ask, folder, marks):
    image = folder.parent / "photos" / "3.png"
    found = ask("--image", image, *marks, "--segmenter", "toysam/untrained", "-k", 2)
    assert [one["rank"] for one in found] == [1, 2]


def test_results_are_printed_as_a_table_and_drawn(folder, encoder_file, tmp_path, capsys):
    more = ["--encoder", f"toyclip/{encoder_file}", "-k", 2, "--save", tmp_path / "panel.png"]
    assert main(["search", folder, "a star", *more]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["rank", "score", "path"]
    assert first.split()[0] == "1" and first.endswith(".png") and second.split()[0] == "2"
    assert (tmp_path / "panel.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to look for: give words, or --image"),
        (["--box", "1,2,3,4"], "mark an object in an image: name it by --image"),
        (["--image", "no.png"], "no.png"),
        (["a star", "--encoder", "toyklip"], "unknown encoder 'toyklip' (did you mean"),
        (["a star", "--encoder", "toyclip/untrained"], "load the same model"),
        (["a star", "--engine", "fast"], "fast"),
        (["a star", "--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_searched_is_told_in_a_sentence(
    folder, encoder_file, capsys, words, sentence
):
    own = [] if "--encoder" in words else ["--encoder", f"toyclip/{encoder_file}"]
    assert sentence in refuse(capsys, "search", folder, *words, *own)


def test_a_model_that_the_index_only_names_is_asked_for(folder, capsys):
    error = refuse(capsys, "search", folder, "a star")
    assert "random.safetensors" in error and "name it by --encoder" in error


def test_no_index_is_told(tmp_path, capsys):
    assert "no index at" in refuse(capsys, "search", tmp_path / "nowhere", "a star")


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "", "1 2 3 4"])
def test_a_box_is_four_numbers(text):
    with pytest.raises(InputError, match="--box takes 4 numbers with commas between"):
        _read_numbers(text, "--box", (4,))


# Index, update


def test_a_folder_is_indexed_and_brought_up_to_date(encoder_file, tmp_path, capsys):
    for number in range(2):
        write_picture(tmp_path / "photos" / f"{number}.png", number)
    name = f"toyclip/{encoder_file}"
    made = ["index", tmp_path / "photos", "--out", tmp_path / "index", "--encoder", name]
    assert main([*made, "--precision", "fp32", "--batch-size", 2]) == 0
    assert "2 images by toyclip" in capsys.readouterr().out
    write_picture(tmp_path / "photos" / "2.png", 2)
    assert main(["update", tmp_path / "index", "--encoder", name]) == 0
    assert "3 images by toyclip" in capsys.readouterr().out
    assert len(open_index(tmp_path / "index")) == 3


def test_only_the_first_images_are_indexed_beside_the_index_of_all(
    encoder_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    for number in range(3):
        write_picture(tmp_path / "photos" / f"{number}.png", number)
    name = f"toyclip/{encoder_file}"
    made = ["index", tmp_path / "photos", "--encoder", name, "--precision", "fp32"]
    assert main(made) == 0
    assert main([*made, "--limit", 2]) == 0
    every, first = sorted(path.parent for path in tmp_path.glob("data/indexes/*/manifest.json"))
    assert first.name == f"{every.name}-first2"
    assert [len(open_index(every)), len(open_index(first))] == [3, 2]


def test_a_trial_does_not_shrink_an_index_of_more_images(folder, capsys):
    before = len(open_index(folder))
    made = ["index", folder.with_name("photos"), "--out", folder, "--limit", 2]
    assert main(made) == 2
    assert "--limit 2 would take all but 2 of 5 images out of the index" in capsys.readouterr().err
    assert len(open_index(folder)) == before == 5


def test_regions_are_made_with_the_images(encoder_file, tmp_path, monkeypatch):
    write_picture(tmp_path / "photos" / "0.png", 0)
    made = ["index", tmp_path / "photos", "--out", tmp_path / "index", "--encoder"]
    made += [f"toyclip/{encoder_file}", "--segmenter", "toysam/untrained", "--regions", "erase"]
    load = registry.load_segmenter

    def load_quick(*names, **options):
        segmenter = load(*names, **options)
        segmenter.everything = FEW
        return segmenter

    monkeypatch.setattr(registry, "load_segmenter", load_quick)
    assert main(made) == 0
    index = open_index(tmp_path / "index")
    assert index.manifest["regions"]["encoding"] == "erase" and len(index.regions) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "no such folder"),
        (["--dataset", "cocoa"], "unknown kind of data set 'cocoa'; known: "),
        (["--split", "val"], "a data set of kind 'folder' has no --split"),
        (["--batch-size", "big"], "--batch-size must be a whole number or auto, got 'big'"),
        (["--regions", "erase", "--encoder", "ViT-B-32/x"], "--regions needs a --segmenter"),
    ],
)
def test_what_cannot_be_indexed_is_told_in_a_sentence(tmp_path, capsys, options, sentence):
    here = tmp_path / "photos"
    if options:
        write_picture(here / "0.png", 0)
    assert sentence in refuse(capsys, "index", here, *options)


def test_an_index_of_other_images_is_not_brought_up_to_date_by_a_guess(folder, capsys):
    assert "say so by --dataset" in refuse(capsys, "update", folder)


# Models, compose


def test_models_say_where_their_weights_go_and_whether_they_are_there(capsys):
    assert main(["models"]) == 0
    lines = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert ["encoder", "toyclip", "there", str(DATA / "toybox/toyclip.safetensors")] in lines
    assert ["vit_b", "absent"] in [line[1:3] for line in lines] or (DATA / "weights").exists()
    assert main(["models", "vit-b-32/openai"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["encoder", "ViT-B-32/openai"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["tune"], ["train"], ["train", "--data", "mnist"], ["evaluate", "--data", "cirr", "--x"],
     ["train", "--data", "cirr", "--gallery", "union"],
     ["evaluate", "--data", "cirr", "--weight", "much"]],
)  # fmt: skip
def test_compose_refuses_what_it_does_not_know(arguments, capsys):
    assert main(["compose", *arguments]) == 2
    assert "Usage: regionlab compose" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "--data", "cirr"], "cirr needs root, the folder"),
        (["evaluate", "--data", "toybox", "--composer", "median"], "'median'"),
        (["train", "--data", "toybox", "--text", "epochs"], "KEY=VALUE, got 'epochs'"),
        (["train", "--data", "toybox", "--text", "epoch=3"], "unknown setting 'epoch'; known: "),
        (["train", "--data", "toybox", "--stage", "last"], "'last'"),
        (["submit", "--data", "fashioniq"], "of CIRR only, not of fashioniq"),
    ],
)
def test_what_cannot_be_composed_is_told_in_a_sentence(capsys, arguments, sentence):
    assert sentence in refuse(capsys, "compose", *arguments)


def test_an_interrupted_training_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("regionlab.compose.stages.train_stages", interrupt)
    assert main(["compose", "train", "--data", "toybox"]) == 130
    assert "the same command goes on from the last epoch" in capsys.readouterr().err


# What all have in common


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_has_help_with_an_example(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert f"Example: regionlab {command}" in capsys.readouterr().out


def test_help_names_every_command_and_needs_nothing_heavy():
    heavy = ("torch", "numpy", "pandas", "open_clip", "PIL", "rich")
    code = (
        "import sys; from regionlab.cli import main; code = main(['--help'])\n"
        f"sys.exit(code or bool(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines() if line.strip()} >= {
        command.split()[0] for command in COMMANDS
    }


def test_the_module_runs_as_the_command():
    command = [sys.executable, "-m", "regionlab.cli", "search"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Usage: regionlab search" in done.stderr


def run_raising(monkeypatch, error):
    def copy(*_):
        raise error

    monkeypatch.setattr("regionlab.index.verify.copy_index", copy)
    return main(["copy", "a", "b"])


def test_an_error_of_ours_is_a_sentence(monkeypatch, capsys):
    assert run_raising(monkeypatch, RegionlabError("no such thing")) == 2
    assert capsys.readouterr().err == "error: no such thing\n"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, OSError, KeyError])
def test_a_bug_is_not_told_as_the_fault_of_the_user(monkeypatch, kind):
    with pytest.raises(kind, match="a bug"):
        run_raising(monkeypatch, kind("a bug"))


def test_an_interrupt_ends_with_130(monkeypatch, capsys):
    assert run_raising(monkeypatch, KeyboardInterrupt()) == 130
    assert "the same command goes on with the files left" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["find"], ["search"], ["verify", "a", "b"], ["run", "--x"]])
def test_what_is_no_command_is_refused(arguments, capsys):
    assert main(arguments) == 2
    assert "Usage: regionlab" in capsys.readouterr().err


# Extras


@pytest.mark.parametrize(
    ("extra", "package", "arguments"),
    [
        ("chroma", "chromadb", ["search", "INDEX", "a star", "--engine", "chroma"]),
        ("video", "av", ["index", "PHOTOS", "--dataset", "video"]),
        ("serve", "fastapi", ["serve", "--index", "INDEX"]),
        ("serve", "uvicorn", ["serve", "--index", "INDEX"]),
        ("ray", "ray", ["index", "PHOTOS", "--ray", "--out", "OUT"]),
    ],
)
def test_what_is_missing_is_told_by_the_name_of_its_extra(
    folder, encoder_file, tmp_path, monkeypatch, capsys, extra, package, arguments
):
    places = {"INDEX": folder, "PHOTOS": folder.parent / "photos", "OUT": tmp_path / "index"}
    if arguments[-2:] == ["--dataset", "video"]:
        places["PHOTOS"] = tmp_path
        (tmp_path / "film.mp4").write_bytes(b"no film")
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    own = [] if arguments[0] == "serve" else ["--encoder", f"toyclip/{encoder_file}"]
    words = [places.get(word, word) for word in arguments]
    assert f"pip install 'regionlab[{extra}]'" in refuse(capsys, *words, *own)
