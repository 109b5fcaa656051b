"""Serve an index: `python -m regionlab.service [--index FOLDER] [--host ...] [--port ...]`."""

import argparse
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regionlab.util import paths

if TYPE_CHECKING:
    from regionlab.index.index import Index
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import Segmenter


log = logging.getLogger("regionlab.service")

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("regionlab.service", description=__doc__.partition(":")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--index", type=paths.expand, help="an index; by default that of Toybox, test"
    )
    source.add_argument(
        "--images", type=paths.expand, help="a folder of pictures, indexed on first use"
    )
    parser.add_argument("--encoder", default="toyclip", help="or architecture/weights")
    parser.add_argument("--segmenter", default="toysam", help="or vit_b, vit_l, vit_h")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--name", action="append", default=[], help="a name it may be called by; repeatable"
    )
    parser.add_argument("--seconds", type=float, default=60, help="most for a request")
    parser.add_argument("--batch", type=int, default=32, help="most that is encoded at once")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return 0, or 2 if it cannot start."""
    options = parse_arguments(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    try:
        serve(options)
    except ModuleNotFoundError as e:
        print(f"error: {e}: install the extra, pip install 'regionlab[serve]'", file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


def serve(options: argparse.Namespace) -> None:
    """Load the models once, open or build the index, and answer requests."""
    import uvicorn  # late, like the models: --help needs none of them

    from regionlab.index.index import open_index
    from regionlab.models.registry import load_encoder, load_segmenter
    from regionlab.service.app import create_app
    from regionlab.service.limits import Limits
    from regionlab.service.server import configure

    index = open_index(options.index) if options.index else None
    encoder = load_encoder(options.encoder, device=options.device)
    segmenter = load_segmenter(options.segmenter, device=options.device)
    index = index or build_own(options.images, encoder, segmenter)
    local = options.host in LOOPBACK
    app = create_app(
        index,
        encoder,
        segmenter,
        limits=Limits(seconds=options.seconds),
        hosts=[*LOOPBACK, *options.name] if local else options.name or None,
        batch=options.batch,
    )
    log.info("%r at http://%s:%d", index, options.host, options.port)
    # uvicorn sends itself the signal again once it has stopped: that is no failure
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = configure(
        app,
        host=options.host,
        port=options.port,
        access_log=False,  # ours has the times
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    # What is loaded stays: to look through it for garbage at each large request would take
    # longer than the request, and everybody would wait.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run()


def build_own(images: Path | None, encoder: "Encoder", segmenter: "Segmenter") -> "Index":
    """Return the index of a folder of pictures, or of Toybox; built where it is not there yet."""
    from regionlab.data.registry import load_collection
    from regionlab.index.build import build_index

    collection = load_collection("folder", images) if images else load_collection("toybox")
    folder = paths.index_folder(collection.name, collection.split, encoder.name, "regions")
    log.info("the index is %s; the first time it takes a while to build", folder)
    return build_index(collection, encoder, folder, segmenter=segmenter)


if __name__ == "__main__":
    sys.exit(main())
