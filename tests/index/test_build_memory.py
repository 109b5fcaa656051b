"""Building an index takes the same memory for a large collection as for a small one."""

import multiprocessing
import os
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import pytest

from regionlab.bench.indexing import write_images
from regionlab.data.collection import load_folder
from regionlab.data.listing import list_images
from regionlab.index.build import build_index
from regionlab.models.registry import load_encoder

MIB = 2**20
COUNTS = (32, 256)  # images of the small collection and of the large one

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells")


def read_peak():
    """Return the most memory that this process has held so far, in bytes."""
    # that of getrusage may be the peak of the process that started this one
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def build(pictures, target):
    encoder = load_encoder("toyclip/untrained", device="cpu", precision="fp32")
    build_index(load_folder(pictures), encoder, target, batch_size=16, fresh=True)
    return read_peak()


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """The peak of each collection's build; a process of its own, as none forgets its peak."""
    folder = tmp_path_factory.mktemp("memory")
    sources, found = list_images(write_images(folder / "pictures", 8, 0)), []
    for count in COUNTS:
        pictures = folder / str(count)
        pictures.mkdir()
        for number, source in enumerate(islice(cycle(sources), count)):
            os.link(source, pictures / f"{number:06d}.jpg")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(build, (pictures, folder / f"index {count}")))
    return found


def test_peak_is_of_the_most_that_was_ever_held():
    code = (
        "import numpy as np; from test_build_memory import MIB, read_peak\n"
        "before = read_peak(); held = np.ones(64 * MIB // 8); del held\n"
        "print((read_peak() - before) / MIB)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert 32 < float(shown.stdout) < 96
    assert read_peak() > 10 * MIB


def test_a_build_takes_as_much_memory_as_one_of_an_eighth_of_the_images(peaks):
    small, large = peaks
    assert 100 * MIB < small < 4000 * MIB
    pixels = (COUNTS[1] - COUNTS[0]) * 640 * 480 * 3  # of the images that are more
    assert large - small < pixels / 4
