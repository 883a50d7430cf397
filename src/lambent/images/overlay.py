"""How overlayfs writes "gone" and "hides all below" into the folder of a layer, and how both are read back.

A *whiteout* is a character device 0:0, which any user may make since Linux 5.8; where that is forbidden, an empty file with the extended
attribute ``overlay.whiteout`` in a folder whose ``overlay.opaque`` is ``x`` (since Linux 6.7). An *opaque* folder has ``overlay.opaque``
set to ``y``. Overlayfs reads these attributes in the namespace ``trusted.`` or, mounted with ``userxattr`` by someone who is not root, in
``user.``: we write both where we may, so that one folder serves either kind of mount.
"""

from __future__ import annotations

import contextlib
import os
import stat

NAMESPACES = ("trusted.overlay.", "user.overlay.")


def make_whiteout(path: str) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, 0)
    except PermissionError:
        with open(path, "xb"):
            pass
        _mark(path, "whiteout", b"")
        if not is_opaque(os.path.dirname(path)):
            _mark(os.path.dirname(path), "opaque", b"x")


def make_opaque(folder: str) -> None:
    _mark(folder, "opaque", b"y")


def is_whiteout(path: str, status: os.stat_result) -> bool:
    """``status`` is that of ``path`` itself, links not followed."""
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0
    return stat.S_ISREG(status.st_mode) and status.st_size == 0 and _read(path, "whiteout") is not None


def is_opaque(folder: str) -> bool:
    return _read(folder, "opaque") == b"y"


def _mark(path: str, name: str, value: bytes) -> None:
    """Raises ``OSError`` where no namespace takes it."""
    failure: OSError | None = None
    done = False
    for namespace in NAMESPACES:
        try:
            os.setxattr(path, namespace + name, value, follow_symlinks=False)
            done = True
        except OSError as error:
            failure = error
    if not done and failure is not None:
        raise failure


def _read(path: str, name: str) -> bytes | None:
    for namespace in NAMESPACES:
        with contextlib.suppress(OSError):
            return os.getxattr(path, namespace + name, follow_symlinks=False)
    return None
