"""The bench of memory builds in processes of their own and compares their peaks."""

import subprocess
import sys

import numpy as np

from regionlab.bench import memory as bench_memory
from regionlab.bench.memory import MIB, measure_memory, read_peak


def test_peak_is_of_the_most_that_was_ever_held():
    code = (
        "import numpy as np; from regionlab.bench.memory import MIB, read_peak\n"
        "before = read_peak(); held = np.ones(64 * MIB // 8); del held\n"
        "print((read_peak() - before) / MIB)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 32 < float(shown.stdout) < 96


def test_two_collections_are_built_and_compared():
    measured = measure_memory(counts=(3, 6), rounds=1, pictures=2)
    small, large = (measured["peak_mib"][str(count)]["value"] for count in (3, 6))
    assert 100 < small < 4000 and 100 < large < 4000
    np.testing.assert_allclose(measured["ratio_large_vs_small"]["value"], large / small, rtol=1e-3)


def test_measures_are_of_pairs_within_a_round(monkeypatch):
    peaks = iter([100, 110, 200, 210, 100, 130])
    monkeypatch.setattr(bench_memory, "_build_apart", lambda *_: next(peaks) * MIB)
    measured = measure_memory(counts=(1, 11), rounds=3, pictures=1)
    assert measured["ratio_large_vs_small"]["range"] == [1.05, 1.3]
    assert measured["growth_kib_per_image"] == {"value": 1024, "range": [1024, 3072], "n": 3}
    assert measured["images"] == [1, 11]


def test_peak_of_this_process_is_told():
    assert read_peak() > 10 * MIB
