"""The measurement of the search service, on a small world, and the service as a command."""

from collections import Counter
from dataclasses import replace

import pytest

from regionlab.bench.serving import (
    Response,
    describe_latency,
    describe_parts,
    drive,
    make_questions,
)
from regionlab.cli import main
from regionlab.service.app import create_app
from regionlab.service.process import find_box, run_service
from service_world import build_world, serve


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def service(world):
    with serve(create_app(world.index, world.encoder, world.segmenter)) as service:
        yield service


def test_clients_ask_in_turn_and_are_answered_rightly(service, world):
    asked = drive(service.port, make_questions(world.index), 3, each=6)
    assert Counter(one.kind for one in asked) == {"words": 6, "image": 6, "region": 6}
    assert all(one.right for one in asked)
    assert all(0 < one.parts["total"] <= one.seconds for one in asked)


def test_a_wrong_answer_is_counted(service, world):
    questions = make_questions(world.index)
    swapped = replace(questions[1], expected=questions[4].expected)
    refused = replace(questions[0], body=b"--x--\r\n")
    for question in (swapped, refused):
        asked = drive(service.port, [question], 1, each=1)
        assert not any(one.right for one in asked)


def test_the_box_asked_for_is_that_of_the_largest_thing_but_the_ground(world):
    index = world.index
    for row in range(len(index)):
        regions = index.regions.iloc[index.regions_of(row)].sort_values("area")
        things = regions[regions["area"] < 256 * 256 / 2]
        expected = [0, 0, 256, 256] if things.empty else things.iloc[-1][["x0", "y0", "x1", "y1"]]
        assert find_box(index, row) == list(expected)


def test_latencies_and_stages_are_medians_in_milliseconds():
    asked = [Response("image", s, True, {"read": s / 2}) for s in (0.001, 0.002, 0.006)]
    assert describe_latency(asked) == {"median": 2.0, "p95": 5.6, "n": 3}
    assert describe_parts(asked) == {"read": 1.0, "client": 2.0}


def test_the_service_runs_as_a_command_and_stops_when_told(world):
    with run_service(world.index.folder, batch=4) as served:
        assert served.ask_health()["images"] == len(world.index)
        assert served.memory() > 10
        assert all(
            one.right for one in drive(served.port, make_questions(world.index), 2, seconds=0.5)
        )
    assert served.process.returncode == 0


def test_a_service_that_cannot_start_says_why(tmp_path, capsys):
    assert main(["serve", "--index", str(tmp_path)]) == 2
    assert "no index" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="no index"), run_service(tmp_path, batch=1):
        pass
