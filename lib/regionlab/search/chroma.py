"""Chroma, in a folder or behind a server: vectors with their table, added in chunks by id."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from regionlab.search.engine import (
    SLACK,
    Engine,
    EngineName,
    check_gallery,
    find_place,
    fingerprint_vectors,
)
from regionlab.search.exact import EngineError, list_not_finite, refuse_not_finite
from regionlab.util.errors import import_extra
from regionlab.util.progress import progress

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from chromadb.config import Settings


OPTIONS = ("collection", "ef_search")
GRAPH = {"space": "cosine", "max_neighbors": 32, "ef_construction": 200}
EF_SEARCH = 400  # Chroma's own 100 misses one neighbour in fifty on random vectors
CHUNK = 2000  # vectors sent at a time, if the server takes as many
QUESTIONS = 100  # queries sent at a time
ANSWERS = 2**12  # rows asked for at most, beyond those of the answer
_clients: dict[Path, tuple[tuple[int, int] | None, "ClientAPI"]] = {}  # by folder, while it is open


class ChromaAddress(NamedTuple):
    """Where a collection lies, and what to see to if it does not answer; for messages."""

    words: str
    advice: str


class ChromaEngine(Engine):
    """Search a collection of Chroma (S1): an HNSW graph by cosine.

    The table is kept with the vectors, for others that read the collection. `where` is asked of
    the table itself, as in all engines. Options of the name: `collection`, by default one named
    after the vectors; and `ef_search`, how widely the graph is searched, fixed when the
    collection is created.
    """

    block = QUESTIONS

    def __init__(
        self,
        name: EngineName,
        vectors: np.ndarray,
        collection: "Collection",
        ids: Sequence[str],
        *,
        place: ChromaAddress,
        table: pd.DataFrame | None = None,
    ):
        super().__init__(str(name), vectors, table)
        self.collection, self.place = collection, place
        self._ids = pd.Index(ids)

    def _find(
        self, queries: np.ndarray, k: int, exclude: np.ndarray, keep: np.ndarray | None
    ) -> Iterable[np.ndarray]:
        n = len(self.vectors)
        asked = k + SLACK  # the excluded row is one of them
        if keep is not None:  # so many that the filter may be expected to leave enough
            asked = max(asked, min(int(2 * asked * n / np.count_nonzero(keep)), ANSWERS))
        with _explain(self.place, "search"):
            answer = self.collection.query(
                query_embeddings=np.asarray(queries, np.float32),
                n_results=min(asked, n),
                include=[],
            )
        for ids, excluded in zip(answer["ids"], exclude, strict=True):
            rows = np.sort(self._ids.get_indexer(ids))
            rows = rows[(rows >= 0) & (rows != excluded)]
            yield rows if keep is None else rows[keep[rows]]


def open_chroma(
    name: EngineName,
    vectors: np.ndarray,
    *,
    folder: Path | str | None,
    identity: str = "",
    table: pd.DataFrame | None = None,
    ids: Sequence[str] | None = None,
    build: bool = False,
) -> ChromaEngine:
    """Open the collection of these vectors, as `open_engine` does.

    With `build` it is created where there is none, and what is missing is added, as `build_engine`
    does. Ids decide what is missing, so adding that was cut off goes on.
    """
    check_gallery(vectors, table)
    name.check_options(OPTIONS)
    name.get_count("ef_search", 1)
    ids = list(map(str, range(len(vectors)) if ids is None else ids))
    if not len(ids) == len(set(ids)) == len(vectors):
        raise ValueError(f"{len(set(ids))} different ids for {len(vectors)} vectors")
    fingerprint = _fingerprint(vectors, identity, table, ids)
    client, place = _connect(name, folder, build)
    with _explain(place, "open"):
        collection = _get_collection(client, name, fingerprint, build)
        _check_collection(collection, name, vectors.shape[1], fingerprint)
        if build:
            chunk = min(CHUNK, client.get_max_batch_size())
            _add_missing(collection, vectors, ids, table, chunk)
            if not name.argument:
                _drop_older(client, collection.name)
        if collection.count() != len(vectors):
            raise EngineError(
                f"the collection {collection.name} of {place.words} holds {collection.count()} of "
                f"{len(vectors)} vectors: build it again, which adds the others"
            )
    return ChromaEngine(name, vectors, collection, ids, place=place, table=table)


def _fingerprint(
    vectors: np.ndarray, identity: str, table: pd.DataFrame | None, ids: list[str]
) -> str:
    """Hash what the collection holds: vectors, ids and the table, which Chroma keeps as well."""
    digest = hashlib.sha256(fingerprint_vectors(vectors, identity).encode())
    digest.update("\n".join(ids).encode())
    if table is not None:
        digest.update(",".join(map(str, table.columns)).encode())
        digest.update(pd.util.hash_pandas_object(table.astype(str), index=False).to_numpy())
    return digest.hexdigest()[:16]


def _connect(
    name: EngineName, folder: Path | str | None, build: bool
) -> tuple["ClientAPI", ChromaAddress]:
    chromadb = import_extra("chromadb", "chroma")  # late: it takes seconds
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    if name.argument:
        host, _, port = name.argument.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"a server is chroma:<host>:<port>, got {name.base!r}")
        place = ChromaAddress(
            f"the Chroma server {name.argument}",
            f"see that it runs: chroma run --path FOLDER --host {host} --port {port}",
        )
        with _explain(place, "connect"):
            return chromadb.HttpClient(host, int(port), settings=settings), place
    path = find_place(folder, "chroma")
    if not build and not (path / "chroma.sqlite3").exists():
        raise EngineError(f"no engine chroma at {path}: build it")
    place = ChromaAddress(str(path), "see that it can be written to, or name another folder")
    with _explain(place, "open"):
        path.mkdir(parents=True, exist_ok=True)
        return _open_folder(path.resolve(), settings), place


def _open_folder(path: Path, settings: "Settings") -> "ClientAPI":
    """Return the client of a folder, a new one where the folder was deleted since it was opened.

    Chroma keeps a folder open as long as the process lives, and would write to the deleted files.
    """
    chromadb = import_extra("chromadb", "chroma")
    file, client = _clients.get(path, (None, None))
    if client is not None and file != _identify(path):
        client.close()
        client = None
    if client is None:
        client = chromadb.PersistentClient(path, settings=settings)
        _clients[path] = _identify(path), client
    return client


def _identify(path: Path) -> tuple[int, int] | None:
    """Return which file the database is; as long as it is open, no other gets its number."""
    try:
        stat = (path / "chroma.sqlite3").stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _get_collection(
    client: "ClientAPI", name: EngineName, fingerprint: str, build: bool
) -> "Collection":
    from chromadb.errors import NotFoundError

    title = name.options.get("collection", f"regionlab-{fingerprint}")
    try:
        return client.get_collection(title, embedding_function=None)
    except NotFoundError as e:
        if not build:
            raise EngineError(f"no collection {title} of these vectors: build it") from e
    graph = GRAPH | {"ef_search": name.get_count("ef_search", EF_SEARCH)}
    return client.create_collection(
        title,
        configuration={"hnsw": graph},
        metadata={"made_by": "regionlab", "fingerprint": fingerprint},
        embedding_function=None,
    )


def _check_collection(
    collection: "Collection", name: EngineName, dim: int, fingerprint: str
) -> None:
    """Refuse a collection of another space, another width or other vectors."""
    graph = collection.configuration_json.get("hnsw") or {}
    stored = collection.get(limit=1, include=["embeddings"])["embeddings"]
    found = {
        "space": (graph.get("space"), "cosine"),
        "width": (dim if len(stored) == 0 else len(stored[0]), dim),
        "ef_search": (graph.get("ef_search"), name.get_count("ef_search", graph.get("ef_search"))),
        "fingerprint": ((collection.metadata or {}).get("fingerprint"), fingerprint),
    }
    for what, (has, wanted) in found.items():
        if has != wanted:
            raise EngineError(
                f"the collection {collection.name} has {what} {has}, these vectors ask for "
                f"{wanted}: name another by ?collection=, or delete it"
            )


def _add_missing(
    collection: "Collection",
    vectors: np.ndarray,
    ids: list[str],
    table: pd.DataFrame | None,
    chunk: int,
) -> None:
    for start in progress(range(0, len(ids), chunk), desc=f"add to {collection.name}"):
        wanted = ids[start : start + chunk]
        present = set(collection.get(ids=wanted, include=[])["ids"])
        rows = [start + i for i, name in enumerate(wanted) if name not in present]
        if rows:
            embeddings = np.ascontiguousarray(vectors[rows], np.float32)
            refuse_not_finite(np.array(rows)[list_not_finite(embeddings)])
            collection.upsert(
                ids=[ids[row] for row in rows],
                embeddings=embeddings,
                metadatas=None if table is None else _list_metadata(table.iloc[rows]),
            )


def _list_metadata(table: pd.DataFrame) -> list[dict[str, Any] | None]:
    """Return what Chroma can keep of each row: texts, numbers and truths that are there."""
    rows = table.astype(object).to_dict("records")
    return [{str(k): v for k, v in row.items() if _can_keep(v)} or None for row in rows]


def _can_keep(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, str | float) and value == value


def _drop_older(client: "ClientAPI", current: str) -> None:
    """Delete what we kept of older vectors in a folder of ours."""
    for other in client.list_collections():
        ours = (other.metadata or {}).get("made_by") == "regionlab"
        if ours and other.name.startswith("regionlab-") and other.name != current:
            client.delete_collection(other.name)


@contextmanager
def _explain(place: ChromaAddress, task: str) -> Iterator[None]:
    """Turn the errors of Chroma, its server and its disk into ours."""
    try:
        yield
    except EngineError:
        raise
    except Exception as e:  # of httpx, chromadb, sqlite and the system: they share no class
        raise EngineError(
            f"{place.words}: cannot {task}: {str(e).strip() or repr(e)}. What was added is kept, "
            f"and building again adds the rest; {place.advice}"
        ) from e
