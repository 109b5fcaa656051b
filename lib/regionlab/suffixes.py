"""Which files are pictures and films, by their suffix, and what is to be said of the others.

Suffixes are in lower case, with their dot. Files of none of these tables (texts, tables, music,
programs) are plainly something else, and no listing mentions them.
"""

import os
from functools import cache
from importlib.util import find_spec

from PIL import features

# What `images.FORMATS` reads with every Pillow: .jfif, .jpe, .pjpeg, .insp and the
# like are JPEG by other names.
IMAGE_SUFFIXES = (
    ".apng", ".bmp", ".dib", ".gif", ".insp", ".jfi", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg",
    ".jps", ".mpo", ".pbm", ".pgm", ".pjp", ".pjpeg", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
AVIF_SUFFIXES = (".avif", ".avifs")
HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")

# What FFmpeg reads.
FILM_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m1v", ".m2t", ".m2ts",
    ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm",
    ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip

RAW = (
    ".3fr", ".arw", ".bay", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq",
    ".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".ptx", ".raf", ".raw",
    ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
OTHER_PICTURES = {
    "raw photographs are not read: export it as JPEG or TIFF": RAW,
    "JPEG 2000 is not read: save it as PNG or TIFF": (
        ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpm", ".jpx",
    ),
    "JPEG XL is not read: save it as JPEG or PNG": (".jxl",),
    "drawings are not read: save it as PNG": (
        ".ai", ".cdr", ".emf", ".eps", ".svg", ".svgz", ".wmf",
    ),
    "files of editors are not read: export it as PNG": (
        ".afphoto", ".clip", ".kra", ".ora", ".procreate", ".psb", ".psd", ".xcf",
    ),
    "pixels without an agreed range are not read: save it as 8 or 16 bits a channel": (
        ".dcm", ".exr", ".fit", ".fits", ".fts", ".hdr", ".nii", ".pfm",
    ),
    "this kind of picture is not read: save it as PNG": (
        ".avci", ".bpg", ".cin", ".cur", ".dds", ".djvu", ".dpx", ".flif", ".icns", ".ico",
        ".jbig2", ".jls", ".jng", ".jxr", ".ktx", ".ktx2", ".mng", ".pam", ".pcd", ".pct", ".pcx",
        ".pict", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".vtf", ".wbmp", ".wdp", ".xbm",
        ".xpm",
    ),
}  # fmt: skip
OTHER_FILMS = (
    ".264", ".265", ".amv", ".ari", ".av1", ".avs", ".bik", ".braw", ".drc", ".h264", ".h265",
    ".hevc", ".insv", ".ivf", ".lrv", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mod", ".nut", ".obu",
    ".r3d", ".swf", ".tod", ".wtv", ".y4m", ".yuv",
)  # fmt: skip
NOT_READ = "this kind of film is not read: save it as .mp4 or .mkv"
IS_FILM = "a film, not a picture: collections of kind 'video' read films"


def suffix_of(name: str) -> str:
    """Return a name's suffix in lower case, "" without one."""
    return os.path.splitext(name)[1].lower()


@cache
def readable_images() -> tuple[str, ...]:
    """Return the suffixes of the pictures that can be read on this machine, sorted."""
    avif = AVIF_SUFFIXES if features.check("avif") else ()
    heif = HEIF_SUFFIXES if has_heif() else ()
    return tuple(sorted((*IMAGE_SUFFIXES, *avif, *heif)))


@cache
def unread_images() -> dict[str, str]:
    """Return suffix -> reason of what looks like a picture, or a film, and is not read as one.

    `.ts` is not among them: where there are pictures, it is rather TypeScript than a film.
    """
    reasons = {suffix: reason for reason, group in OTHER_PICTURES.items() for suffix in group}
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
