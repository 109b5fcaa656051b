"""README's examples work: Python blocks are run, shell lines are parsed."""

import re
import shlex

import pytest
from typer.main import get_command

from regionlab.cli import app
from regionlab.util.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def find_blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def find_commands(text=README):
    """Return the lines of shell blocks that call regionlab, continued lines joined."""
    joined = "\n".join(find_blocks("console", text)).replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ regionlab")]


@pytest.fixture
def small_toybox(monkeypatch, tmp_path):
    """README's data set with 40 scenes, its regions found with few points, in a folder apart."""
    import toybox
    from regionlab.models import registry
    from regionlab.models.segmenter import MaskGeneratorConfig

    load_toybox, load_segmenter = toybox.load_toybox, registry.load_segmenter

    def load_quick(name):
        segmenter = load_segmenter(name)
        segmenter.everything = MaskGeneratorConfig(
            2, pred_iou_thresh=0, stability_score_thresh=0, max_regions=3
        )
        return segmenter

    monkeypatch.setattr(toybox, "load_toybox", lambda: load_toybox(tmp_path / "toybox", count=40))
    monkeypatch.setattr(registry, "load_segmenter", load_quick)
    monkeypatch.chdir(tmp_path)


def test_python_examples_run_one_after_another(small_toybox, capsys):
    blocks, names = find_blocks("python"), {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert len(blocks) >= 4
    assert len(re.findall(r"^ *rank +image_id", printed, re.MULTILINE)) == 3


@pytest.mark.parametrize("line", find_commands())
def test_shell_examples_are_understood(line):
    command, words = get_command(app), shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    if words not in (["--help"], ["COMMAND", "--help"]):
        command.make_context("regionlab", words)


def test_readme_shows_the_main_commands():
    shown = {line.split()[1] for line in find_commands()}
    assert shown >= {"index", "search", "update", "verify", "copy", "run"}
