import pytest

from regionlab.util import progress as module
from regionlab.util.progress import progress


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Let four seconds pass with every look at the clock, and nobody look on."""
    times = iter(range(0, 10_000, 4))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    monkeypatch.setenv("REGIONLAB_RUN", "somewhere")


def test_items_pass_through_in_order():
    assert list(progress("abc", "letters")) == ["a", "b", "c"]


def test_lines_come_at_most_every_ten_seconds_and_at_the_end(capsys):
    list(progress(range(5), "count"))
    assert capsys.readouterr().out.splitlines() == [
        "count: 3/5 (0.25/s, 8 s left)",  # after 12 s
        "count: 5/5 in 24.0 s (0.21/s)",
    ]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "said"),
    [
        (10, 100, 9, ", 81 s left"),
        (10, 100, 10, ", 2 min left"),  # 90 s
        (1, 61, 60, ", 1 h 0 min left"),
        (100, 5000, 160, ", 2 h 11 min left"),  # 7840 s
        (7, None, 3, ""),
    ],
)
def test_what_is_left_is_told_as_people_say_it(done, total, seconds, said):
    assert module._describe_rest(done, total, seconds) == said


def test_the_last_item_is_told_once(capsys):
    list(progress(range(3), "count"))
    assert capsys.readouterr().out == "count: 3/3 in 16.0 s (0.19/s)\n"


def test_without_a_total_only_what_is_done_is_told(capsys):
    list(progress(iter("ab"), "read"))
    assert capsys.readouterr().out == "read: 2 in 12.0 s (0.17/s)\n"


def test_nothing_to_do_is_told_too(capsys):
    list(progress([], "read"))
    assert capsys.readouterr().out == "read: 0/0 in 4.0 s (0/s)\n"


def test_somebody_who_looks_on_sees_a_bar(capsys, monkeypatch):
    monkeypatch.delenv("REGIONLAB_RUN")
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress(range(2), "count")) == [0, 1]
    captured = capsys.readouterr()
    assert "count: 100%" in captured.err
    assert captured.out == ""


def test_a_line_that_cannot_be_written_stops_nothing(monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.print", refuse)
    assert list(progress([1, 2], "count")) == [1, 2]
