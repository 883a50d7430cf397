"""The root that a function sees, assembled from the host by bind mounts.

Built once per zygote, in a mount namespace of its own, and inherited by every sandbox: a small tmpfs, sealed read-only, with ``/usr``
of the host, the interpreter's prefix at ``/var/lang``, the runtime's packages at ``/var/runtime``, a few files of ``/etc`` written
here, and the harmless devices. Nothing else of the host is in it: no home, no data directory, no socket. Sources are opened as detached
mounts before anything is covered, so that it does not matter where they lie.

``/usr/local`` and the interpreter's ``site-packages`` are covered by an empty directory: what an administrator installed there is not
part of AWS's runtimes and must not change how functions behave.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass

from lambent.sandbox import kernel

TMPFS_OPTIONS = "mode=0755,size=64m,nr_inodes=8192"
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DIRECTORIES = ("dev", "etc", "etc/ssl", "mnt", "opt", "proc", "tmp", "usr", "var/empty", "var/lang", "var/runtime", "var/task")
_COPIED = ("ld.so.cache", "ld.so.conf", "localtime", "services", "protocols", "mime.types", "ssl/openssl.cnf")
_BOUND = ("ssl/certs", "ca-certificates", "pki", "alternatives")
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "shm": "/tmp"}
_SPOTS = ("/mnt", "/media", "/srv", "/tmp", "/usr")


@dataclass(frozen=True)
class RootPlan:
    """What a zygote's root is made of. Paths are the host's."""

    executable: str  # of the Python that is the zygote; "" in the root of a carrier
    prefix: str  # seen as /var/lang; "" for none
    version: tuple[int, ...]  # of that Python
    packages: tuple[tuple[str, str], ...]  # (name under /var/runtime, path)
    files: tuple[tuple[str, bytes], ...]  # (name under /var/runtime, content)
    first_uid: int  # of the user ids that sandboxes get, for /etc/passwd
    resolv_conf: str
    rootless: bool
    links: tuple[tuple[str, str], ...] = ()  # (name below the root, target)

    @property
    def is_system(self) -> bool:
        """Whether the interpreter lives in ``/usr`` itself and needs no bind mount of its own."""
        return self.prefix == "/usr"

    def inner_executable(self) -> str:
        """The interpreter's path inside the root."""
        if self.is_system:
            return self.executable
        return "/var/lang" + self.executable[len(self.prefix) :]


def enter(plan: RootPlan) -> None:
    """Move the calling process into a mount namespace and root of its own. Raises ``OSError``."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    trees = _sources(plan)
    links, etc = _links(), _etc(plan)
    spot = next(path for path in _SPOTS if os.path.isdir(path))
    kernel.mount("lambent", spot, "tmpfs", kernel.MS_NOSUID, TMPFS_OPTIONS)
    os.chdir(spot)
    os.umask(0o022)
    for name in _DIRECTORIES:
        os.makedirs(name, exist_ok=True)
    for name, target in (*links.items(), *plan.links):
        os.symlink(target, name)
    for name, content in {**etc, **{"var/runtime/" + name: content for name, content in plan.files}}.items():
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as file:
            file.write(content)
    for target, fd in trees:
        _attach(target, fd)
    for target in _covered(plan):
        if os.path.isdir(target):
            _attach(target, kernel.open_tree("var/empty"))
    _put_bash_first()
    if plan.is_system:
        os.symlink("/usr/bin", "var/lang/bin")
    _devices(plan.rootless)
    if plan.rootless:  # the kernel lets only those mount a new /proc who see one already; each sandbox covers it
        kernel.mount("proc", "proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.pivot_root(".", ".")
    kernel.umount(".")
    os.chdir("/")
    kernel.mount("none", "/", "none", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)
    os.umask(0o022)


def _sources(plan: RootPlan) -> list[tuple[str, int]]:
    """(place below the new root, detached mount) of everything that is bound, parents first."""
    bound = [("usr", "/usr")]
    bound += [(name, "/" + name) for name in _LINKED if os.path.isdir("/" + name) and not os.path.islink("/" + name)]
    bound += [("etc/" + name, "/etc/" + name) for name in (*_BOUND, *_java_settings()) if os.path.isdir("/etc/" + name)]
    if plan.prefix and not plan.is_system:
        bound.append(("var/lang", plan.prefix))
    bound += [("var/runtime/" + name, path) for name, path in plan.packages]
    return [(target, _tree(os.path.realpath(path))) for target, path in bound]


def _java_settings() -> list[str]:
    """Distributions' virtual machines are full of links to folders below ``/etc``, and do not start without them."""
    return sorted(name for name in os.listdir("/etc") if name.startswith("java"))


def _tree(path: str) -> int:
    try:
        return kernel.open_tree(path)
    except OSError:
        return kernel.open_tree(path, recursive=True)  # without root, mounts below may not be left out


def _attach(target: str, fd: int) -> None:
    """Mount at ``target`` below the working directory, read-only."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.move_mount(fd, target)
    os.close(fd)
    kernel.restrict_mount(target)


def _covered(plan: RootPlan) -> list[str]:
    short = ".".join(str(number) for number in plan.version[:2])
    if not plan.version:
        return ["usr/local"]
    covered = [f"var/lang/{lib}/python{short}/site-packages" for lib in ("lib", "lib64")]
    if plan.is_system:
        covered += ["usr/lib/python3/dist-packages", f"usr/lib/python{short}/site-packages", f"usr/lib64/python{short}/site-packages"]
    return ["usr/local", *covered]


def _put_bash_first() -> None:
    """AWS's ``/bin/sh`` is bash, and scripts rely on it (``set -o pipefail``); Debian's is not."""
    shell, bash = os.path.realpath("/bin/sh"), os.path.realpath("/bin/bash")
    if shell != bash and os.path.isfile(bash) and shell.startswith("/usr/"):
        tree = kernel.open_tree(bash)
        kernel.move_mount(tree, shell[1:])
        os.close(tree)
        kernel.restrict_mount(shell[1:])


def _links() -> dict[str, str]:
    return {name: os.readlink("/" + name) for name in _LINKED if os.path.islink("/" + name)}


def _etc(plan: RootPlan) -> dict[str, bytes]:
    uids = (993,) if plan.rootless else range(plan.first_uid, plan.first_uid + 2048)
    users = "root:x:0:0:root:/root:/sbin/nologin\n" + "".join(
        f"sbx_user1051:x:{uid}:{990 if plan.rootless else uid}::/home/sbx_user1051:/sbin/nologin\n" for uid in uids
    )
    groups = "root:x:0:\n" + "".join(f"sbx_user1051:x:{990 if plan.rootless else uid}:\n" for uid in uids)
    texts = {
        "etc/passwd": users,
        "etc/group": groups,
        "etc/hosts": "127.0.0.1 localhost sandbox sandbox.localdomain\n::1 localhost\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        "etc/hostname": "sandbox\n",
        "etc/resolv.conf": plan.resolv_conf,
    }
    contents = {name: text.encode() for name, text in texts.items()}
    for name in _COPIED:
        with contextlib.suppress(OSError), open("/etc/" + name, "rb") as file:
            contents["etc/" + name] = file.read(1 << 20)
    return contents


def _devices(rootless: bool) -> None:
    for name, minor in _DEVICES.items():
        path = "dev/" + name
        if rootless:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
            kernel.mount("/dev/" + name, path, "none", kernel.MS_BIND)
            kernel.restrict_mount(path, writable=True, devices=True)
        else:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
            os.chmod(path, 0o666)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, "dev/" + name)
