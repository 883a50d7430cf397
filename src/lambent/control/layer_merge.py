"""The layers of a function merged to what it sees as ``/opt`` (contract 03 §6).

A layer's files lie unpacked under the hash of their zip, like any code. A function with one layer gets that very folder. One with several
gets a folder of its own, named by the hash of the list of hashes, so that functions with the same layers in the same order share it:

* files are hard links to the layers' files, so a merge of gigabytes costs no space; where the file system refuses, they are copies;
* the later layer wins, name by name. Folders of the same name are joined; where one layer has a folder and another a file or a link of
  the same name, the later one takes the whole name, as when one zip is unpacked over the other;
* links are made anew as they are and never followed.

Everything here is blocking and runs in a thread. What comes out is read-only by the mount that shows it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

_REFUSALS = {errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP}
MAX_EXTENSIONS = 64  # what is looked at; that only ten may register is the platform's business


def merged_key(hashes: Sequence[str]) -> str:
    """Names the merge of layers with these SHA-256, bottom first: ``""`` of none, the layer's own hash of one.

    No zip can have the name of a merge by its content, since what is hashed here is not the text of a zip.
    """
    if len(hashes) < 2:
        return "".join(hashes)
    return hashlib.sha256(("lambent layers\n" + "\n".join(hashes)).encode()).hexdigest()


def merge(layers: Sequence[Path], target: Path) -> int:
    """Merge the folders ``layers``, bottom first, into the existing, empty ``target``. Gives how many files and links were made."""
    return sum(_lay(str(layer), str(target)) for layer in layers)


def _lay(source: str, target: str) -> int:
    """Lay one folder over another, without recursion, since a zip may nest folders deeply."""
    made = 0
    pending = [(source, target)]
    while pending:
        here, there = pending.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                path = os.path.join(there, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    _make_folder(path)
                    pending.append((entry.path, path))
                else:
                    _take_name(path)
                    _place(entry, path)
                    made += 1
    return made


def _make_folder(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        os.unlink(path)
    os.mkdir(path)
    os.chmod(path, 0o755)  # mkdir's mode is subject to the umask


def _take_name(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _place(entry: os.DirEntry[str], path: str) -> None:
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), path)
        return
    try:
        os.link(entry.path, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        shutil.copy2(entry.path, path, follow_symlinks=False)


def extensions_in(opt_dir: str) -> tuple[str, ...]:
    """The external extensions among merged layers, as paths inside: executable files in ``extensions``, by name (contract 03 §1).

    ``opt_dir`` is the folder on the host, ``""`` where there are no layers. A link counts if it leads to a file of the same folder.
    """
    if not opt_dir:
        return ()
    try:
        with os.scandir(os.path.join(opt_dir, "extensions")) as entries:
            names = sorted(entry.name for entry in entries if _is_executable(entry))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(f"/opt/extensions/{name}" for name in names[:MAX_EXTENSIONS])


def _is_executable(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink() and "/" in os.readlink(entry.path):
        return False
    try:
        status = entry.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)
