"""The command line of indexes on many machines: build one, copy one."""

import argparse
from collections.abc import Sequence

from regionlab.command_line import run_command
from regionlab.paths import expand, index_folder

ADDRESS = (
    "host:port of the cluster's head, or auto on a machine of the cluster; without it RAY_ADDRESS "
    "counts, and else workers are started on this machine"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 if refused, 130 if interrupted."""
    return run_command(_read_arguments(arguments), "with the shards left")


def _build(options: argparse.Namespace) -> None:
    from regionlab.datasets import load_collection
    from regionlab.distributed import build_index_distributed

    choice = {"split": options.split} if options.split else {}
    collection = load_collection(options.dataset, options.root, **choice)
    name = (collection.name, collection.split, options.encoder)
    index = build_index_distributed(
        collection, options.encoder, options.out or index_folder(*name), workers=options.workers,
        cpus_per_worker=options.cpus, gpus_per_worker=options.gpus,
        batch_size=options.batch_size, shard_size=options.shard_size,
        precision=options.precision, padding=options.padding, address=options.address,
        fresh=options.fresh,
    )  # fmt: skip
    print(f"{index} in {index.folder}")


def _copy(options: argparse.Namespace) -> None:
    from regionlab.index_copy import copy_index

    print(copy_index(options.source, options.target))


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "regionlab.distributed", description="Indexes on many machines, with Ray."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_build(commands)
    text = "copy an index, also to object storage and from there"
    copy = commands.add_parser("copy", help=text, description=text)
    copy.set_defaults(run=_copy)
    for name in ("source", "target"):
        copy.add_argument(name, help="a folder, or a URI such as s3://bucket/folder")
    return parser.parse_args(arguments)


def _add_build(commands) -> None:
    text = "build an index with several workers, or go on with one begun"
    build = commands.add_parser(
        "build", help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    build.set_defaults(run=_build)
    add = build.add_argument
    add("--dataset", required=True, help="kind of data set: coco, folder, toybox, ...")
    add("--root", type=expand, help="its folder, at the same path on every machine; not for Toybox")
    add("--split", help="such as val2017; the data set's own choice if not given")
    add("--encoder", default="toyclip", help="such as ViT-B-32/openai")
    add("--out", type=expand, help="where the index goes; data/indexes/... if not given")
    add("--address", help=ADDRESS)
    add("--workers", type=int, default=2, help="copies of the model")
    add("--cpus", type=int, default=1, help="processors of each worker")
    add("--gpus", type=float, default=0, help="GPUs of each worker; 0.5 for two on one")
    add("--batch-size", type=int, default=64, help="images a forward pass")
    add("--shard-size", type=int, default=2048, help="images that a worker takes at a time")
    add("--precision", default="auto", choices=("auto", "bf16", "fp32"), help="of the model")
    add("--padding", default="none", choices=("none", "target", "square"), help="of long images")
    add("--fresh", action="store_true", help="embed everything again, whatever is there")
