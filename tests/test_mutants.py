"""The runner of mutants: which changes it makes, and how they are counted."""

import pytest

import mutants
from mutants import draw_mutants, list_mutants, summarise

CODE = """def f(x: int | None, y=2) -> int | None:
    for i in range(3):
        x += i
    return x > y
"""


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(CODE)
    return path


def test_code_is_changed_and_annotations_are_not(module):
    found = list_mutants("module", module)
    assert {mutant.line for mutant in found} == {1, 2, 4}  # of line 1 the default value
    assert {mutant.operator for mutant in found if mutant.line == 1} == {"core/NumberReplacer"}
    assert "core/ZeroIterationForLoop" in {mutant.operator for mutant in found}
    assert not any("BinaryOperator" in mutant.operator for mutant in found)


def test_the_same_seed_draws_the_same_and_lines_come_before_repeats(module):
    every = list_mutants("module", module)
    drawn = draw_mutants(every, 3, seed=1)
    assert drawn == draw_mutants(every[::-1], 3, seed=1)
    assert {mutant.line for mutant in drawn} == {1, 2, 4}
    assert sorted(map(repr, draw_mutants(every, 10**6, seed=1))) == sorted(map(repr, every))
    assert len({tuple(draw_mutants(every, 3, seed=seed)) for seed in range(9)}) > 1


def test_survivors_are_those_whose_tests_passed():
    results = [
        {"module": name, "tests": said}
        for name, said in [("a", "failed"), ("a", "passed"), ("b", "stuck")]
    ]
    report = summarise(results)
    assert report["scores"] == {
        "a": {"killed": 1, "tried": 2},
        "b": {"killed": 1, "tried": 1},
        "all": {"killed": 2, "tried": 3},
    }
    assert report["survivors"] == [results[1]]


def test_a_survivor_is_found_a_noticed_change_is_not_and_the_code_is_left_as_it_was(
    tmp_path, monkeypatch
):
    path = tmp_path / "lib" / "regionlab" / "toy.py"
    path.parent.mkdir(parents=True)
    path.write_text("def half(x):\n    return x / 2\n\n\ndef third(x):\n    return x / 3\n")
    (tmp_path / "tests").mkdir()
    test = f"import sys\nsys.path.insert(0, {str(path.parent)!r})\nimport toy\n\n"
    test += "def test_half():\n    assert toy.half(8) == 4\n"
    (tmp_path / "tests" / "test_toy.py").write_text(test)
    monkeypatch.setitem(mutants.TESTS, "toy", ["toy"])
    before = path.read_text()
    results = mutants.try_mutants(tmp_path, "toy", most=2, seed=0)
    assert path.read_text() == before
    assert {result["line"]: result["tests"] for result in results} == {2: "failed", 6: "passed"}


def test_every_module_and_every_test_of_it_is_there():
    for module, tests in mutants.TESTS.items():
        assert (mutants.ROOT / "lib" / "regionlab" / f"{module}.py").is_file()
        for name in tests:
            assert (mutants.ROOT / mutants.find_test(name)).is_file()


def test_an_unknown_module_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        mutants.main(["nosuch"])
    assert "'nosuch'; known: data/masks, data/prompts" in capsys.readouterr().err
