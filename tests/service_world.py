"""A small world for the tests of the search service, and the service on a free port."""

import shutil
import socket
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import uvicorn

from regionlab.data.registry import load_collection
from regionlab.index.build import add_regions, build_index
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.service.server import configure
from toybox import load_toybox

COUNT = 24
HTML_NAME = "<img src=x onerror=document.title='hit'>.jpg"
ODD_NAME = "a b/ü%2F#?.jpg"  # in a folder of its own
COARSE = MaskGeneratorConfig(points_per_side=4, pred_iou_thresh=0.5, stability_score_thresh=0.5)


def build_world(folder):
    """Index a folder of Toybox pictures, two of them oddly named."""
    encoder = load_encoder(device="cpu", precision="fp32")
    segmenter = load_segmenter(device="cpu", precision="fp32")
    toybox = load_toybox(folder / "toybox", split="test", count=COUNT)
    names = [HTML_NAME, ODD_NAME, *(f"{i:02d}.jpg" for i in range(2, COUNT))]
    for name, path in zip(names, toybox.images["path"], strict=True):
        target = folder / "pictures" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toybox.root / path, target)
    index = build_index(load_collection("folder", folder / "pictures"), encoder, folder / "index")
    index = add_regions(index, segmenter, encoder, everything=COARSE)
    ids = dict(zip(index.images["path"], index.images["image_id"], strict=True))
    return SimpleNamespace(
        index=index, encoder=encoder, segmenter=segmenter, ids=[ids[name] for name in names]
    )


@contextmanager
def serve(app):
    """Run an application on a free port of loopback; yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes early waits
        config = configure(app, log_level="critical", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield SimpleNamespace(url=f"http://{host}:{port}", host=host, port=port)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the service does not stop"


def post(client, path, **fields):
    """Send fields as multipart; lists as several, bytes as a file."""
    parts = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            file = ("picture.jpg", one) if isinstance(one, bytes) else (None, str(one))
            parts.append((name, file))
    return client.post(path, files=parts)
