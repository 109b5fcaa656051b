"""Weights as training scripts leave them: wrapped, prefixed, and beside much else."""

import argparse
import collections
import datetime
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from regionlab.models import clip as toyclip
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.weights import CheckpointError, WeightsError, read_checkpoint, tell_misfit

STATE = {"visual.proj": torch.ones(2, 3), "visual.ln.weight": torch.zeros(2)}
STATE["scale"] = torch.ones(())


class Config:
    """A class of a training script, which is not there where weights are loaded."""

    def __init__(self):
        self.lr, self.inner = 0.1, [argparse.Namespace(a=1)]

    def __setstate__(self, state):
        raise AssertionError("code in a file was run")


class Gift:
    """What a pickle runs when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def prefixed(prefix, state=STATE):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def read(content, folder, name="w.pt"):
    torch.save(content, folder / name)
    return read_checkpoint(folder / name)


def assert_is_state(found, state=STATE):
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor)


PREFIXES = [
    "", "module.", "_forward_module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.",
    "model.", "model.module.", "net.", "module.model._orig_mod.", "_fsdp_wrapped_module.", "clip.",
]  # fmt: skip
KEYS = ["state_dict", "model", "model_state_dict", "net", "ema", "weights", "my_own_name"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_are_stripped(prefix, tmp_path):
    assert_is_state(read(prefixed(prefix), tmp_path))


@pytest.mark.parametrize("key", KEYS)
def test_a_state_dict_is_found_under_its_key(key, tmp_path):
    optimizer = {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]}
    content = {"epoch": 3, "iteration": torch.tensor(7), "optimizer": optimizer, key: STATE}
    if key == "my_own_name":
        del content["iteration"]
    assert_is_state(read(content, tmp_path))


def test_a_state_dict_is_found_under_keys_within_keys(tmp_path):
    assert_is_state(read({"model": {"state_dict": prefixed("module.")}}, tmp_path))


def test_the_model_is_taken_before_its_average(tmp_path):
    average = {name: tensor + 1 for name, tensor in STATE.items()}
    assert_is_state(read({"ema": average, "model": STATE}, tmp_path))


def test_a_submodule_that_was_compiled_has_its_own_names(tmp_path):
    state = {"visual._orig_mod.proj": STATE["visual.proj"], "scale": STATE["scale"]}
    assert read(state, tmp_path).keys() == {"visual.proj", "scale"}


def test_counters_beside_the_tensors_are_left_out(tmp_path):
    assert_is_state(read({**STATE, "epoch": 3, "name": "x", "none": None}, tmp_path))


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1, out=Path("x")),
        Config(),
        {"a": [Config()]},
        collections.OrderedDict(a=1),
        torch.float32,
        datetime.datetime(2024, 1, 1),
        np.float64(0.5),
    ],
    ids=["namespace", "own class", "nested", "ordered", "dtype", "date", "number"],
)
def test_objects_beside_the_weights_are_not_loaded(beside, tmp_path):
    assert_is_state(read({"state_dict": STATE, "args": beside}, tmp_path))


def test_a_class_that_is_gone_does_not_matter(tmp_path, monkeypatch):
    torch.save({"model": STATE, "config": Config()}, tmp_path / "w.pt")
    monkeypatch.delattr(f"{__name__}.Config")
    assert_is_state(read_checkpoint(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    "gift",
    [
        Gift(os.system, "touch owned"),
        Gift(print, "opened"),
        Gift(eval, "1"),
        Gift(Path.touch, Path("owned")),
    ],
)
def test_what_calls_functions_is_refused_and_not_run(gift, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"more than tensors, which is not loaded"):
        read({"state_dict": STATE, "gift": gift}, tmp_path)
    assert not (tmp_path / "owned").exists()
    assert capsys.readouterr().out == ""


def test_a_whole_model_names_the_class_that_is_not_loaded(tmp_path):
    with pytest.raises(CheckpointError, match=r"no state dict; classes .*not loaded: .*Config"):
        read({"model": Config()}, tmp_path)


def test_several_state_dicts_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="several state dicts, generator, critic"):
        read({"generator": STATE, "critic": STATE}, tmp_path)


@pytest.mark.parametrize("content", [[STATE["scale"]], 3, {}, {"epoch": 3}, STATE["scale"]])
def test_what_is_no_state_dict_is_refused(content, tmp_path):
    with pytest.raises(CheckpointError, match="it is no state dict"):
        read(content, tmp_path)


def test_files_of_older_forms_are_read(tmp_path):
    torch.save({"model": STATE}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert_is_state(read_checkpoint(tmp_path / "w.pt"))
    save_file(prefixed("module."), tmp_path / "w.safetensors")
    assert_is_state(read_checkpoint(tmp_path / "w.safetensors"))


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": Gift(print, "opened")}))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "w.pt")


def test_a_misfit_is_told_with_the_first_names():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict({"0.weight": torch.zeros(9, 9), "1.bias": torch.zeros(2)})
    told = tell_misfit(caught.value)
    assert 'Missing key(s) in state_dict: "0.bias", "1.weight"' in told
    assert "0.weight" in told
    assert len(told) < 250


# All that load weights


WRAPPED = {
    "compiled": lambda state: {"state_dict": prefixed("_orig_mod.", state)},
    "compiled and parallel": lambda state: {"model": prefixed("module._orig_mod.", state)},
    "beside options": lambda state: {"model": state, "args": argparse.Namespace(lr=1)},
    "beside a config": lambda state: {"model_state_dict": state, "config": Config()},
}


@pytest.fixture(scope="module")
def clip_state():
    toyclip.register_toyclip()
    model = load_encoder("toyclip/untrained", device="cpu", precision="fp32").model
    return model.state_dict()


@pytest.mark.parametrize("kind", WRAPPED)
def test_encoders_load_them(clip_state, tmp_path, kind):
    torch.save(WRAPPED[kind](clip_state), tmp_path / "w.pt")
    encoder = load_encoder(f"toyclip/{tmp_path / 'w.pt'}", device="cpu", precision="fp32")
    assert_is_state(encoder.model.state_dict(), clip_state)


@pytest.mark.parametrize("kind", WRAPPED)
def test_segmenters_load_them(tmp_path, kind):
    state = load_segmenter("toysam/untrained", device="cpu").predictor.model.state_dict()
    torch.save(WRAPPED[kind](state), tmp_path / "w.pt")
    loaded = load_segmenter(f"toysam/{tmp_path / 'w.pt'}", device="cpu")
    assert_is_state(loaded.predictor.model.state_dict(), state)


@pytest.mark.parametrize("kind", WRAPPED)
def test_baselines_load_them(tmp_path, kind):
    from regionlab.models.registry import load_baseline

    state = load_baseline("toysegnet/untrained", device="cpu", precision="fp32").model.state_dict()
    torch.save(WRAPPED[kind](state), tmp_path / "w.pt")
    loaded = load_baseline(f"toysegnet/{tmp_path / 'w.pt'}", device="cpu", precision="fp32")
    assert_is_state(loaded.model.state_dict(), state)


def test_an_encoder_that_does_not_fit_says_which_weights(clip_state, tmp_path):
    state = {name: tensor for name, tensor in clip_state.items() if name != "logit_scale"}
    torch.save({"model": prefixed("_orig_mod.", state)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r'of another architecture: Missing key.*"logit_scale"'):
        load_encoder(f"toyclip/{tmp_path / 'w.pt'}", device="cpu")
