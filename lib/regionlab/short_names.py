"""Names for our own files that stay legal, however long the name is that they come from."""

import hashlib

# Bytes of one name, and of a path; disks take 255 (143 if encrypted), and suffixes come behind.
LONGEST_NAME, LONGEST_PATH = 100, 400
KEPT = 60


def shorten_path(path: str) -> str:
    """Return a path with forward slashes as it is or, if too long, as one name with a digest.

    The name keeps the beginning of the path's last part, to be recognised by.
    """
    names = path.split("/")
    if len(path.encode()) <= LONGEST_PATH and max(len(n.encode()) for n in names) <= LONGEST_NAME:
        return path
    kept = names[-1].encode()[:KEPT].decode(errors="ignore")  # no half letters
    return f"{kept}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
