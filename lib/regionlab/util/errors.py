"""The base of all errors that regionlab raises on purpose."""


class RegionlabError(Exception):
    """What a user can set right: the message names the value and what is allowed.

    The command line tells errors of this kind in one sentence; any other exception is a bug and
    shows its traceback.
    """


class InputError(RegionlabError, ValueError):
    """A value that was given cannot be used."""


class MissingFileError(RegionlabError, FileNotFoundError):
    """A file or folder that was named is not there."""


class NotAFolderError(RegionlabError, NotADirectoryError):
    """A folder was named, and a file is there."""
