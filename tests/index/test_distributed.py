"""Indexes by two workers on a local Ray, against what one machine makes.

Ray takes seconds to start and each worker loads torch, so few builds serve many tests.
"""

import contextlib
import io
import os
import signal
import socket
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from regionlab.bench.indexing import write_images
from regionlab.cli import main
from regionlab.data.collection import Collection, make_table
from regionlab.data.registry import load_collection
from regionlab.index import on_ray as distributed
from regionlab.index import shards
from regionlab.index.build import build_index
from regionlab.index.index import open_index
from regionlab.index.on_ray import Model, ShardEncoder, WorkerSpec, build_index_distributed
from regionlab.index.staging import find_builder
from regionlab.models.registry import load_encoder
from regionlab.runs import parallel as ray_cluster
from regionlab.runs.parallel import ClusterError, open_cluster

SIZES = {"batch_size": 3, "shard_size": 6}
CREW = WorkerSpec(workers=1, cpus=1, gpus=0, encoder="toyclip", precision="fp32", padding="none")
FILES = ("images.parquet", "image_vectors.npy", "failures.csv")


# ---- without Ray


@pytest.fixture(scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'regionlab\[ray\]'"), open_cluster():
        pass


@pytest.mark.parametrize(
    "option", [{"workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}, {"shard_size": 0}]
)
def test_impossible_numbers_are_refused_before_ray_is_asked(tmp_path, option):
    collection = Collection(tmp_path, make_table("images"))
    with pytest.raises(ValueError, match="must be at least 1"):
        build_index_distributed(collection, "toyclip", tmp_path / "index", **option)


def test_an_address_where_nobody_listens_is_refused_at_once():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}: .*refused"):
        with open_cluster(address):
            pass


@pytest.mark.parametrize(
    ("address", "words"),
    [("nowhere", 'an address is "host:port"'), ("ray://127.0.0.1:1", "from outside of a cluster")],
)
def test_an_address_of_another_kind_is_refused(address, words):
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}: .*{words}"):
        with open_cluster(address):
            pass


def test_a_cluster_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 0.1)
    hanging = threading.Event()
    silent = SimpleNamespace(init=lambda *_, **__: hanging.wait(20))
    with pytest.raises(TimeoutError, match="no answer within 0.1 s"):
        ray_cluster._init_in_time(silent, "127.0.0.1:1")
    hanging.set()


def embed(worker, paths=()):
    return worker({"start": np.array([0]), "paths": np.array([list(map(str, paths))], object)})


def test_a_worker_that_does_not_see_the_images_says_so(tmp_path):
    result = embed(ShardEncoder(CREW, None, tmp_path / "nowhere", 3, 2))
    assert "FileNotFoundError: no folder" in result["error"][0]
    assert result["shard"] == [b""]


def test_a_worker_with_another_model_says_so(one_thread, tmp_path):
    model = Model("space", {"model": "another", "precision": "fp32"}, 64)
    (error,) = embed(ShardEncoder(CREW, model, tmp_path, 3, 2))["error"]
    assert "ValueError: another model" in error
    assert "name the precision" in error


# ---- one build, begun on one machine and gone on with by two workers, one of them killed


@pytest.fixture(scope="module")
def cluster():
    with open_cluster(num_cpus=2, num_gpus=0, object_store_memory=100_000_000) as ray:
        yield ray


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = write_images(tmp_path_factory.mktemp("ray") / "pictures", 22, seed=0)
    (folder / "000008x.jpg").write_bytes(b"no picture")
    return load_collection("folder", folder)


class InterruptError(Exception):
    pass


@contextlib.contextmanager
def kept_shards(module, kept, *, at_most=99, seen=None):
    """Keep a copy of each shard that is written; cut the build off after some."""
    original = shards.save_shard

    def save(folder, start, data):
        if len(kept) == at_most:
            raise InterruptError
        original(folder, start, data)
        kept.append((start, data))
        if seen:
            seen()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save_shard", save)
        yield


def make_dying_worker(log):
    """Return a worker that notes its shards, of which the first one dies at its first."""

    class DyingWorker(ShardEncoder):
        def _embed(self, paths):
            shard = super()._embed(paths)
            with open(log, "a") as file:
                file.write(f"{Path(paths[0]).name} {os.getpid()}\n")
            with contextlib.suppress(FileExistsError):
                log.with_suffix(".dead").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            return shard

    return DyingWorker


@pytest.fixture(scope="module")
def built(cluster, one_thread, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes")
    found = SimpleNamespace(plain=[], begun=[], ray=[], log=folder / "log")
    encoder = load_encoder("toyclip", device="cpu", precision="fp32")
    with warnings.catch_warnings(action="ignore"), kept_shards(shards, found.plain):
        found.expected = build_index(pictures, encoder, folder / "plain", **SIZES)
    with pytest.raises(InterruptError), kept_shards(shards, found.begun, at_most=1):
        build_index(pictures, encoder, folder / "index", **SIZES)
    arguments = ["index", pictures.root, "--ray", "--precision", "fp32"]
    arguments += ["--out", folder / "index", "--batch-size", 3, "--shard-size", 6]
    look = lambda: setattr(found, "builder", find_builder(folder / "index"))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch, kept_shards(distributed, found.ray, seen=look):
        patch.setattr(distributed, "ShardEncoder", make_dying_worker(found.log))
        with pytest.warns(UserWarning, match="1 files are not in the index"):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                found.code = main(arguments)
    found.printed, found.index = printed.getvalue(), open_index(folder / "index")
    return found


def test_the_index_is_that_of_one_machine_byte_by_byte(built):
    assert len(built.index) == 22
    for name in FILES:
        ours, theirs = built.index.folder / name, built.expected.folder / name
        assert ours.read_bytes() == theirs.read_bytes(), name
    of_its_own = {"seconds": 0, "checksum": ""}
    assert {**built.index.manifest, **of_its_own} == {**built.expected.manifest, **of_its_own}


def read_bytes(data):
    """Return the contents of a shard, but for the time that it took."""
    return data.log.drop(columns="seconds").to_csv(), data.vectors.tobytes()


def test_every_shard_is_that_of_one_machine_byte_by_byte(built):
    plain, others = dict(built.plain), dict([*built.begun, *built.ray])
    assert sorted(plain) == sorted(others) == [0, 6, 12, 18]
    for start in plain:
        assert read_bytes(others[start]) == read_bytes(plain[start]), start


def test_shards_that_are_there_are_not_embedded_again(built):
    names = {line.split()[0] for line in built.log.read_text().splitlines()}
    assert [start for start, _ in built.begun] == [0]
    assert names == {built.expected.images["path"][row] for row in (6, 11, 17)}


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(built):
    lines = [line.split() for line in built.log.read_text().splitlines()]
    assert sorted(Counter(name for name, _ in lines).values()) == [1, 1, 2]
    assert sorted(start for start, _ in built.ray) == [6, 12, 18]
    assert len({process for _, process in lines}) >= 2
    assert str(os.getpid()) not in {process for _, process in lines}


def test_unreadable_images_are_listed(built):
    assert built.index.failures["path"].tolist() == ["000008x.jpg"]
    assert "not an image" in built.index.failures["reason"][0]


def test_the_one_who_called_has_the_lock_while_workers_embed(built):
    assert built.builder.startswith(f"process {os.getpid()} on ")
    assert find_builder(built.index.folder) is None


def test_the_command_says_what_it_has_built(built):
    assert built.code == 0
    assert "<Index pictures: 22 images by toyclip, 1 unreadable> in /" in built.printed


# ---- what workers and clusters cannot do


@pytest.fixture
def write(cluster, pictures, tmp_path):
    def write(worker, shard_size=12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "ShardEncoder", worker)
            patch.setattr(distributed, "RETRIES", 1)
            with distributed._plain_errors(cluster):
                distributed.write_shards_with_ray(
                    pictures, np.arange(12), None, tmp_path,
                    batch_size=3, workers=2, shard_size=shard_size, crew=CREW,
                )  # fmt: skip

    return write


def test_what_fails_on_a_worker_is_told_in_a_line(write, tmp_path):
    class Failing(ShardEncoder):
        def _embed(self, paths):
            raise FloatingPointError("the model gave a vector that is not finite")

    with pytest.raises(ClusterError, match="on .*, FloatingPointError: the model gave a vector"):
        write(Failing)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_each_time_ends_the_build(write):
    class Dying(ShardEncoder):
        def _embed(self, paths):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ClusterError, match="dies again and again often lacks memory"):
        write(Dying)


def test_more_workers_than_there_is_room_for_are_refused(cluster, pictures, tmp_path):
    words = "3 workers with 1 CPUs and 0 GPUs each do not fit.* 2 CPUs and 0 GPUs, room for 2"
    with pytest.raises(ClusterError, match=words):
        build_index_distributed(pictures, "toyclip", tmp_path / "index", workers=3)
    with pytest.raises(ClusterError, match="1 workers with 3 CPUs .* room for 0"):
        ray_cluster.check_capacity(cluster, 1, cpus=3, gpus=0)
    with pytest.raises(ClusterError, match="with 1 CPUs and 0.5 GPUs each .* room for 0"):
        ray_cluster.check_capacity(cluster, 2, cpus=1, gpus=0.5)


def test_a_second_address_beside_a_connection_is_refused(cluster):
    with pytest.raises(ClusterError, match="connected to Ray already"), open_cluster("auto"):
        pass


def test_the_local_ray_listens_on_the_loopback_interface_only(cluster):
    assert [node["NodeManagerAddress"] for node in cluster.nodes()] == ["127.0.0.1"]


def test_an_unknown_encoder_is_told_as_on_one_machine(cluster, pictures, tmp_path, capsys):
    arguments = ["index", pictures.root, "--ray"]
    arguments += ["--out", str(tmp_path / "index"), "--encoder", "toyklip"]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: unknown encoder 'toyklip' (did you mean")
