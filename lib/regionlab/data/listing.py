"""List the files of some kinds under a folder, and say why others are left out."""

import heapq
import os
import reprlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import features

from regionlab.util.errors import InputError, MissingFileError, NotAFolderError
from regionlab.util.paths import expand

# What `images.FORMATS` reads with every Pillow: .jfif, .jpe, .pjpeg, .insp and the
# like are JPEG by other names.
IMAGE_SUFFIXES = (
    ".apng .bmp .dib .gif .insp .jfi .jfif .jif .jpe .jpeg .jpg .jps .mpo .pbm .pgm .pjp .pjpeg "
    ".png .pnm .ppm .tif .tiff .webp"
).split()
AVIF_SUFFIXES = (".avif", ".avifs")
HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
FILM_SUFFIXES = (  # what FFmpeg reads
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .m1v .m2t .m2ts .m2v .m4v .mkv .mov .mp4 .mpe "
    ".mpeg .mpg .mts .mxf .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv"
).split()
OTHER_IMAGES = {  # reason -> suffixes
    "raw photographs are not read: export it as JPEG or TIFF": (
        ".3fr .arw .bay .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw "
        ".nef .nrw .orf .pef .ptx .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
    ),
    "JPEG 2000 is not read: save it as PNG or TIFF": ".j2c .j2k .jp2 .jpc .jpf .jpm .jpx",
    "JPEG XL is not read: save it as JPEG or PNG": ".jxl",
    "drawings are not read: save it as PNG": ".ai .cdr .emf .eps .svg .svgz .wmf",
    "files of editors are not read: export it as PNG": (
        ".afphoto .clip .kra .ora .procreate .psb .psd .xcf"
    ),
    "pixels without an agreed range are not read: save it as 8 or 16 bits a channel": (
        ".dcm .exr .fit .fits .fts .hdr .nii .pfm"
    ),
    "this kind of picture is not read: save it as PNG": (
        ".avci .bpg .cin .cur .dds .djvu .dpx .flif .icns .ico .jbig2 .jls .jng .jxr .ktx "
        ".ktx2 .mng .pam .pcd .pct .pcx .pict .qoi .ras .rgb .rgba .sgi .tga .vtf .wbmp .wdp "
        ".xbm .xpm"
    ),
}
OTHER_FILMS = (
    ".264 .265 .amv .ari .av1 .avs .bik .braw .drc .h264 .h265 .hevc .insv .ivf .lrv .mj2 "
    ".mjpeg .mjpg .mk3d .mod .nut .obu .r3d .swf .tod .wtv .y4m .yuv"
).split()
NOT_READ = "this kind of film is not read: save it as .mp4 or .mkv"
IS_FILM = "a film, not a picture: collections of kind 'video' read films"

# Of network disks, bins and file systems: thumbnails, deleted files, what a repair has found.
SYSTEM_FOLDERS = frozenset({
    "#recycle", "#snapshot", "$recycle.bin", "$windows.~bt", "@eadir", "@recently-snapshot",
    "@recycle", "@sharebin", "@snapshot", "@tmp", "@trash", "__macosx", "config.msi", "found.000",
    "lost+found", "lost.dir", "network trash folder", "recycled", "recycler",
    "system volume information", "temporary items", "thevolumesettingsfolder", "~snapshot",
})  # fmt: skip
SYSTEM_NAMES = SYSTEM_FOLDERS | {"desktop.ini", "ehthumbs.db", "thumbs.db"}


def suffix_of(name: str) -> str:
    """Return a name's suffix in lower case, "" without one."""
    return os.path.splitext(name)[1].lower()


@cache
def readable_images() -> tuple[str, ...]:
    """Return the suffixes of the images that can be read on this machine, sorted."""
    avif = AVIF_SUFFIXES if features.check("avif") else ()
    heif = HEIF_SUFFIXES if has_heif() else ()
    return tuple(sorted((*IMAGE_SUFFIXES, *avif, *heif)))


@cache
def unread_images() -> dict[str, str]:
    """Return suffix -> reason of what looks like an image, or a film, and is not read as one.

    `.ts` is not among them: where there are images, it is rather TypeScript than a film.
    """
    reasons = {suffix: reason for reason, group in OTHER_IMAGES.items() for suffix in group.split()}
    reasons |= dict.fromkeys(HEIF_SUFFIXES, "HEIC is read once regionlab[heic] is installed")
    reasons |= dict.fromkeys(AVIF_SUFFIXES, "this Pillow was built without AVIF")
    reasons |= dict.fromkeys((*OTHER_FILMS, *FILM_SUFFIXES), IS_FILM)
    known = (*readable_images(), ".ts")
    return {suffix: reason for suffix, reason in reasons.items() if suffix not in known}


def unread_films() -> dict[str, str]:
    """Return suffix -> reason of what looks like a film and is not read."""
    return dict.fromkeys(OTHER_FILMS, NOT_READ)


@cache
def has_heif() -> bool:
    """Tell whether pillow-heif, the extra `heic`, is installed."""
    return find_spec("pillow_heif") is not None


@dataclass
class Listing:
    """The files found under a folder, and path -> reason of what looks like them and is not."""

    paths: list[str] = field(default_factory=list)  # relative, with forward slashes, sorted
    skipped: dict[str, str] = field(default_factory=dict)  # sorted

    def describe_skipped(self) -> str:
        """Say for an error how much was left out, and why the first was."""
        if not self.skipped:
            return ""
        path, reason = next(iter(self.skipped.items()))
        return f"; left out: {len(self.skipped):,}, the first: {path} ({reason})"


def list_files(
    root: Path | str, wanted: Collection[str], unread: Mapping[str, str] | None = None
) -> Listing:
    """List the files under a folder by their suffix, in any case, nested ones included.

    Left out, and told in `skipped`, are: files of an `unread` suffix; names that start with a dot
    and the folders that systems make for thumbnails and deleted files (`SYSTEM_FOLDERS`), a
    folder once, with the number of such files in it, where there are any; pipes and devices; and
    whatever cannot be listed, such as a folder without permission or with too long a path.

    Each real folder is visited once. Linked folders are entered after all others, sorted, so a
    folder that lies under `root` itself is listed there, and a link to one listed already is left
    out. A dangling link with a name that is wanted is listed, so that reading it reports the loss.

    Parameters
    ----------
    root
        An existing folder; OSError if it cannot be listed.
    wanted
        Suffixes in lower case, with their dot.
    unread
        Suffix -> reason of files that are to be mentioned.
    """
    walk = _Walk(Path(root), wanted, unread or {})
    walk.visit("", os.path.realpath(root))
    while walk.links:
        walk.enter_link(heapq.heappop(walk.links))
    found = walk.found
    return Listing(sorted(found.paths), dict(sorted(found.skipped.items())))


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is left out of every listing."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_text(name: str) -> bool:
    """Tell whether a name is valid UTF-8; no table can hold any other."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Walk:
    """One walk under a root; a path "" stands for the root itself."""

    def __init__(self, root: Path, wanted: Collection[str], unread: Mapping[str, str]):
        self.root, self.wanted, self.unread = root, frozenset(wanted), unread
        self.found = Listing()
        self.links: list[str] = []  # a heap of those to folders, not yet entered
        self.visited: dict[str, str] = {}  # real folder -> where it was listed

    def visit(self, path: str, real: str) -> None:
        """Walk through a folder and the real folders in it, keeping links for later."""
        waiting = [(path, real)]  # no recursion: paths may be thousands of folders deep
        while waiting:
            path, real = waiting.pop()
            if real in self.visited:
                continue
            self.visited[real] = path
            for entry in self._scan(path):
                below = f"{path}/{entry.name}" if path else entry.name
                if self._take(entry, below) == "folder":
                    waiting.append((below, os.path.join(real, entry.name)))

    def enter_link(self, path: str) -> None:
        """Walk through a linked folder, unless it was visited before."""
        real = os.path.realpath(self.root / path)
        if real in self.visited:
            there = self.visited[real] or "the folder itself"
            self.found.skipped[path] = f"a link to a folder that is listed already: {there}"
        else:
            self.visit(path, real)

    def _take(self, entry: os.DirEntry, path: str) -> str | None:
        """Put an entry where it belongs; "folder" for one that is to be walked through."""
        try:
            is_folder = entry.is_dir()
            if is_hidden(entry.name):
                self._leave_out_hidden(entry, path, is_folder)
            elif is_folder and _is_link(entry):
                heapq.heappush(self.links, path)
            elif is_folder:
                return "folder"
            else:
                self._take_file(entry, path)
        except OSError as e:  # such as a link to itself, or into a folder without permission
            self.found.skipped[path] = _explain(e)
        return None

    def _take_file(self, entry: os.DirEntry, path: str) -> None:
        suffix = suffix_of(entry.name)
        if suffix in self.unread and suffix not in self.wanted:
            self.found.skipped[path] = self.unread[suffix]
        elif suffix in self.wanted and (entry.is_file() or entry.is_symlink()):
            self.found.paths.append(path)
        elif suffix in self.wanted:  # a pipe or device: reading one could wait for ever
            self.found.skipped[path] = "not a regular file"

    def _leave_out_hidden(self, entry: os.DirEntry, path: str, is_folder: bool) -> None:
        dotted = entry.name.startswith(".")
        kind = "hidden" if dotted else "system"
        if not is_folder:
            # ._a.jpg is what macOS keeps beside a.jpg on foreign disks.
            if self._is_known(entry.name) and not entry.name.startswith("._"):
                self.found.skipped[path] = f"{kind} file"
        elif not _is_link(entry) and (content := self._count(path)):
            self.found.skipped[path] = f"{kind} folder: {content}"

    def _count(self, folder: str) -> str:
        """Say how many files of known suffixes a folder holds; "" for none."""
        count, problem, waiting = 0, "", [self.root / folder]
        while waiting:
            try:
                with os.scandir(waiting.pop()) as scan:
                    for entry in scan:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            count += self._is_known(entry.name)
            except OSError as e:
                problem = _explain(e)
        files = f"{count:,} {'file' if count == 1 else 'files'} in it" if count else ""
        return "; ".join(filter(None, (files, problem)))

    def _is_known(self, name: str) -> bool:
        suffix = suffix_of(name)
        return suffix in self.wanted or suffix in self.unread

    def _scan(self, path: str) -> list[os.DirEntry]:
        try:
            with os.scandir(self.root / path) as scan:
                return list(scan)
        except OSError as e:
            if not path:
                raise
            self.found.skipped[path] = _explain(e)
            return []


def _is_link(entry: os.DirEntry) -> bool:
    return entry.is_symlink() or getattr(entry, "is_junction", bool)()  # Python 3.12, Windows


def _explain(e: OSError) -> str:
    return f"it cannot be listed: {e.strerror or e}"


def list_content(folder: Path) -> str:
    """Say what a folder holds, for the error when something else was looked for."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as e:
        return f"the folder cannot be listed: {e.strerror or e}"
    more = ", ..." if len(names) > 12 else ""
    return f"the folder holds {', '.join(names[:12]) or 'nothing'}{more}"


def say_missing(what: str, root: Path, looked_for: Iterable[str], source: str) -> MissingFileError:
    """Return the error that something is not in a folder, and where it can be had."""
    names = ", ".join(looked_for)
    return MissingFileError(
        f"no {what} in {root}: looked for {names}; {list_content(root)}. {source}"
    )


def show(value: object) -> str:
    """Return a value in short, whatever it holds; JSON's null is None."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 60
    return shown.repr(value)


def find_images(root: Path | str) -> Listing:
    """List the images under a folder, nested ones included, and what was left out and why.

    See `list_files` for what is left out. Images and films of kinds that are not read,
    by their suffix, are in `skipped` too; files that are plainly something else are not.

    Raises
    ------
    MissingFileError, NotAFolderError, OSError, InputError
        If `root` is not there, is a file, cannot be listed, or holds no image.
    """
    root = expand(root)
    if not root.exists():
        raise MissingFileError(f"no such folder: {root}")
    if not root.is_dir():
        raise NotAFolderError(f"not a folder but a file: {root}")
    found = list_files(root, readable_images(), unread_images())
    if not found.paths:
        known = ", ".join(readable_images())
        raise InputError(f"no images in {root} (looked for {known}){found.describe_skipped()}")
    return found


def list_images(root: Path | str) -> list[Path]:
    """List the images under a folder, nested ones included, in a fixed order.

    Sorted by the path relative to `root` with forward slashes. Raises as `find_images` does,
    which also says what was left out.
    """
    root = expand(root)
    return [root / path for path in find_images(root).paths]
