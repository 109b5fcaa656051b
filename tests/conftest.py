import os

import pytest

# The default tests run offline, without a screen, and beside each other: two workers
# with a thread per core each are slower than two with one.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory):
    """Weights of toyclip's architecture with random numbers, as a safetensors file."""
    import torch
    from safetensors.torch import save_file

    from regionlab.models.clip import create_toyclip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model, _, _ = create_toyclip()
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def encoder(encoder_file):
    """The real classes around random weights, in fp32 on the CPU."""
    from regionlab.models.registry import load_encoder

    return load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def segmenter():
    """SAM's real classes around random weights, in fp32 on the CPU; of each module its own."""
    from regionlab.models.registry import load_segmenter

    return load_segmenter("toysam/untrained", device="cpu", precision="fp32")


@pytest.fixture
def threads():
    """Set how many threads torch computes with, for the length of a test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
