"""Furnishing: the mounts of a sandbox that depend on the function.

A blank's root is the runtime's (``rootfs.py``). With the assignment come the code, the merged layers, folders of the host at ``/mnt``, and
the size of ``/tmp``, or, for a container image, another root altogether: an overlay of the image's layers, which are only mounted and
never copied, with a thin layer of our own on top for the places that every sandbox has. All of it arrives as detached mounts that the
launcher has opened, so nothing here can reach for a path of the host.

Runs in the interpreter of the function, CPython 3.8 to 3.14, from the sandbox's own ``/var/runtime``, and in forks of the launcher.
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambent.sandbox import kernel
else:
    try:
        import lambent_kernel as kernel
    except ImportError:  # in the launcher
        from lambent.sandbox import kernel

SAFE = kernel.MS_NOSUID | kernel.MS_NODEV
_MADE = ("dev", "etc", "mnt", "opt", "proc", "tmp", "var/task")  # in an image, where it does not have them
_WRITTEN = ("etc/hosts", "etc/resolv.conf", "etc/hostname")
_ACCOUNTS = ("etc/passwd", "etc/group")
_MAX_ACCOUNTS = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def tmp_options(size_mb: int, owner: int) -> str:
    """Options of the tmpfs at ``/tmp``."""
    return "size=%dm,nr_inodes=%d,mode=0700,uid=%d,gid=%d" % (size_mb, size_mb * 64, owner, owner)  # noqa: UP031


def set_limit(limit: int, soft: int, hard: int, pid: int = 0) -> None:
    """Set a resource limit of ``pid`` (0: our own), no higher than it may be raised."""
    ceiling = resource.prlimit(pid, limit)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.prlimit(pid, limit, (soft, hard))


def furnish(message: dict[str, Any], fds: dict[str, int], owner: int, blank_tmp_mb: int) -> None:
    """Mount what ``message`` asks for. Raises ``OSError``."""
    if "tmp" in fds:
        kernel.umount("/tmp")
        kernel.move_mount(fds["tmp"], "/tmp")
        os.close(fds["tmp"])
        if owner:
            _hand_over("/tmp", owner)
    elif message["tmp_mb"] != blank_tmp_mb:
        kernel.mount("tmp", "/tmp", "tmpfs", kernel.MS_REMOUNT | SAFE, tmp_options(message["tmp_mb"], owner))
    layers = [fds[name] for name in fds if name.startswith("layer")]
    if layers:
        _enter_image(layers, [mount["target"] for mount in message["mounts"]], owner)
    for name, target in (("code", "/var/task"), ("opt", "/opt")):
        if name in fds:
            kernel.move_mount(fds[name], target)
            kernel.restrict_mount(target)
    if message["mounts"] and not layers:
        _make_targets(message["mounts"])
    for number, mount in enumerate(message["mounts"]):
        kernel.move_mount(fds["mount%d" % number], mount["target"])  # noqa: UP031
        kernel.restrict_mount(mount["target"], writable=not mount["read_only"])


def _hand_over(folder: str, owner: int) -> None:
    """All that the user of the sandbox before left in ``folder`` is ``owner``'s. Nobody else is there, so nothing changes under our feet.

    Goes through folders one step at a time: trees may be deeper than paths may be long, or descriptors many. The steps are descriptors and
    not the working directory, which a warm interpreter that is just starting shares with us and changes.
    """
    at = os.open(folder, _FOLDER)
    os.chown(at, owner, owner)
    levels = [_hand_over_files(at, owner)]
    while levels:
        if levels[-1]:
            at = _step(at, levels[-1].pop())
            levels.append(_hand_over_files(at, owner))
        else:
            levels.pop()
            if levels:
                at = _step(at, "..")
    os.close(at)


def _step(at: int, name: str) -> int:
    """The folder ``name`` of the folder ``at``, which is closed."""
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    finally:
        os.close(at)


def _hand_over_files(at: int, owner: int) -> list[str]:
    """Change the owner of what is in the folder ``at``; the folders among it."""
    folders = []
    with os.scandir(at) as entries:
        for entry in entries:
            os.chown(entry.name, owner, owner, dir_fd=at, follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
    return folders


def _make_targets(mounts: list[dict[str, Any]]) -> None:
    """The root is sealed; what is to be below ``/mnt`` needs a small tmpfs there."""
    kernel.mount("mnt", "/mnt", "tmpfs", SAFE, "size=64k,nr_inodes=64,mode=0755")
    for mount in mounts:
        os.makedirs(mount["target"], exist_ok=True)
    kernel.mount("none", "/mnt", "none", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | SAFE)


# -- container images ---------------------------------------------------------------------------------------------------------------


def _enter_image(layers: list[int], targets: list[str], owner: int) -> None:
    """Make the overlay of ``layers`` (bottom first) the root, with ``/proc``, ``/dev`` and ``/tmp`` of the sandbox in it."""
    kept = {name: kernel.open_tree("/" + name, recursive=True) for name in ("dev", "proc", "tmp")}
    texts = {name: _read("/" + name) for name in _WRITTEN}
    kernel.mount("stack", "/mnt", "tmpfs", SAFE, "size=4m,mode=0755")
    os.chdir("/mnt")
    os.mkdir("root")
    lower: list[str] = []
    for number, fd in enumerate(layers):
        name = str(number)
        os.mkdir(name)
        kernel.move_mount(fd, name)
        lower.insert(0, name)
    _make_top(lower, texts, targets, owner)
    options = "lowerdir=" + ":".join(["top", *lower]) + (",userxattr" if owner == 0 else "")
    kernel.mount("image", "root", "overlay", SAFE | kernel.MS_RDONLY, options)
    for name, fd in kept.items():
        kernel.move_mount(fd, "root/" + name)
        os.close(fd)
    os.chdir("root")
    kernel.pivot_root(".", ".")
    kernel.umount(".")
    os.chdir("/")


def _make_top(lower: list[str], texts: dict[str, bytes], targets: list[str], owner: int) -> None:
    """The uppermost layer: mount points, and the few files that are ours to say. ``lower`` is the top layer first."""
    for name in (*_MADE, *(target.lstrip("/") for target in targets)):
        os.makedirs("top/" + name, exist_ok=True)
    for name in _ACCOUNTS:
        texts[name] = _accounts(name, lower, owner)
    for name, content in texts.items():
        with open("top/" + name, "wb") as file:
            file.write(content)


def _accounts(name: str, lower: list[str], owner: int) -> bytes:
    """The image's users or groups with the sandbox's own added."""
    number = owner or 993 if name == "etc/passwd" else owner or 990
    entry = "sbx_user1051:x:%d:%d::/home/sbx_user1051:/sbin/nologin\n" % (number, owner or 990)  # noqa: UP031
    if name == "etc/group":
        entry = "sbx_user1051:x:%d:\n" % number  # noqa: UP031
    content = b""
    for layer in lower:
        folder, path = os.path.join(layer, "etc"), os.path.join(layer, name)
        if os.path.islink(folder):  # a link would be followed out of the layer
            break
        if os.path.lexists(path):
            content = b"" if os.path.islink(path) else _read(path)
            break
    return content.rstrip(b"\n") + (b"\n" if content else b"") + entry.encode()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_ACCOUNTS)
    except OSError:
        return b""
