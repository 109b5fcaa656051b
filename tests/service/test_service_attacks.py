"""While somebody attacks the service, somebody else searches: that must go on."""

import threading
import time

import httpx
import numpy as np
import pytest

from regionlab.service.process import run_service
from service_attacks import ATTACKS
from service_world import build_world, post

SECONDS = 1.0  # of an attack
SEARCHES = 6  # at least, while it goes on
MOST = 2.0  # seconds of a search meanwhile, at the 95th percentile
PATIENCE = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def served(world):
    with run_service(world.index.folder, batch=32) as served:
        search(served.port)  # as warm as it becomes
        yield served


def search(port):
    """Search by words as a client of its own; return the seconds that it took."""
    started = time.perf_counter()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        answer = post(client, "/search", words="a red star")
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - started


@pytest.mark.parametrize("name", ATTACKS)
def test_others_search_while_somebody_attacks(served, name):
    address, stop = ("127.0.0.1", served.port), threading.Event()
    attacker = threading.Thread(target=ATTACKS[name], args=(address, stop))
    attacker.start()
    try:
        time.sleep(0.3)
        end, seconds = time.monotonic() + SECONDS, []
        while time.monotonic() < end or len(seconds) < SEARCHES:
            seconds.append(search(served.port))
            time.sleep(0.05)
    finally:
        stop.set()
        attacker.join(PATIENCE)
    assert np.percentile(seconds, 95) < MOST
    assert not attacker.is_alive()
    assert search(served.port) < 4 * MOST  # nothing is left behind
