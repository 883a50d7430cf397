"""The Java client as something that can be run: its sources, compiled, and an archive of its classes for each virtual machine.

The repository holds sources only (``runtime_api/java_client``). They are compiled when Lambent is set up (``prepare.py``), or when a Java
runtime is first asked for, into a folder that is named by the hash of the sources: of the installation if that can be written, else of the
user. One jar serves Java 8 to 25, so it does not matter which JDK compiles it.

The *archive* (class data sharing) spares a virtual machine from reading and checking the classes that every start needs: those of a
rehearsed start, the library's and ours, are laid down as the machine has them in memory. A machine believes an archive only if the class
path reads as it did when the archive was made; that is why the jar is named by a relative path, which is the same below ``/var`` in a
sandbox as in the folder here, and why a file keeps its time when it is bound there. Without an archive everything works, 15 ms slower.

Everything appears at once by a rename, so that several processes may do this at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from lambent.runtimes.java_machines import Machine
from lambent.runtimes.packages import default_folder

SOURCES = Path(__file__).resolve().parent.parent / "runtime_api" / "java_client"
JAR, ARCHIVE = "lambent.jar", "lambent.jsa"  # their names below /var/runtime
JAR_FROM_TASK = f"../runtime/{JAR}"  # and from the working directory
ARCHIVED_FROM = 11  # Java 8 shares its own classes only

_MANIFEST = (
    "Manifest-Version: 1.0\r\n"
    "Main-Class: lambent.runtime.Main\r\n"
    "Add-Opens: java.base/java.io java.base/java.lang java.base/java.util\r\n"
    "\r\n"
)
_COMPILE_S, _ARCHIVE_S = 120.0, 60.0


def jar(machines: Sequence[Machine]) -> Path | str:
    """The compiled client, made now if it is not there, or a sentence that says why it cannot be. Blocks for seconds to make it."""
    for folder in _folders():
        made = folder / _identity() / "runtime" / JAR
        if made.is_file():
            return made
    compilers = [each for each in sorted(machines, key=lambda each: each.major) if each.compiler is not None]
    if not compilers:
        return (
            "Lambent's client for Java functions is not compiled yet, and there is no javac on this machine: install a JDK (any version "
            "from 8 on; a package whose name ends in -jdk-headless will do) beside the Java runtime."
        )
    reasons: list[str] = []
    for folder in _folders():
        for machine in compilers:
            answer = _make(folder, machine)
            if isinstance(answer, Path):
                return answer
            reasons.append(answer)
    return f"Lambent could not compile its client for Java functions: {'; '.join(dict.fromkeys(reasons))}."


def archive(client: Path, machine: Machine) -> Path | None:
    """The class archive of ``client`` for ``machine``, made now if it is not there; ``None`` where there can be none. Blocks."""
    if machine.major < ARCHIVED_FROM:
        return None
    folder = client.parent.parent
    made = folder / f"java{machine.major}-{_fingerprint(machine)}.jsa"
    if made.is_file():
        return made
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".archive.") as scratch:
            return _dump(folder / "task", Path(scratch), machine, made)
    except OSError:
        return None


@cache
def _identity() -> str:
    """The hash of all sources, by name and content, and of how they are packed."""
    digest = hashlib.sha256(_MANIFEST.encode())
    for path in _sources():
        content = path.read_bytes()
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def _sources() -> list[Path]:
    return sorted(SOURCES.rglob("*.java"))


def _folders() -> Iterator[Path]:
    """Where compiled clients are, or could be."""
    yield default_folder() / "java"
    cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(cache_home) / "lambent" / "java"


def _make(folder: Path, machine: Machine) -> Path | str:
    target = folder / _identity()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".java.") as scratch:
            made = Path(scratch, "made")
            for name in ("runtime", "task"):
                (made / name).mkdir(parents=True)
            refusal = _compile(machine, Path(scratch, "classes"))
            if refusal:
                return refusal
            _pack(Path(scratch, "classes"), made / "runtime" / JAR)
            made.chmod(0o755)
            with contextlib.suppress(OSError):  # somebody else was faster
                made.rename(target)
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})"
    made_jar = target / "runtime" / JAR
    return made_jar if made_jar.is_file() else f"{target} is in the way"


def _compile(machine: Machine, classes: Path) -> str:
    """Run ``javac``; gives what it complained of, empty if it did not."""
    classes.mkdir()
    level = ["-source", "8", "-target", "8"] if machine.major == 8 else ["--release", "8"]
    options = ["-nowarn", "-Xlint:-options", "-proc:none", "-encoding", "UTF-8", "-g", "-d", str(classes)]
    answer = _run([machine.compiler or "javac", *level, *options, *map(str, _sources())], classes, _COMPILE_S)
    return "" if answer is not None and answer[0] == 0 else f"javac {machine.version}: {(answer[1] if answer else 'no answer')[:500]}"


def _pack(classes: Path, target: Path) -> None:
    """A jar is a zip file; stored, since it is read at every start and compressing it gains nothing on a disk."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as made:
        made.writestr("META-INF/MANIFEST.MF", _MANIFEST)
        for path in sorted(classes.rglob("*.class")):
            made.write(path, path.relative_to(classes).as_posix())
    target.chmod(0o644)


def _fingerprint(machine: Machine) -> str:
    """What an archive depends on besides the client: the very build of the virtual machine."""
    facts = [machine.home, machine.version]
    for name in ("lib/modules", "lib/server/libjvm.so", "release"):
        with contextlib.suppress(OSError):
            found = os.stat(os.path.join(machine.home, name))
            facts.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _dump(task: Path, scratch: Path, machine: Machine, target: Path) -> Path | None:
    """Note what a rehearsal loads, then write the archive. Heap objects are archived by G1 only; other collectors can read them."""
    listing, made = scratch / "classes.list", scratch / "made.jsa"
    rehearse = ["-XX:+UseSerialGC", "-XX:-UsePerfData", f"-XX:DumpLoadedClassList={listing}", "-jar", JAR_FROM_TASK, "--rehearse"]
    write = ["-XX:+UseG1GC", "-XX:-UsePerfData", "-Xshare:dump", f"-XX:SharedClassListFile={listing}", f"-XX:SharedArchiveFile={made}"]
    for arguments in (rehearse, [*write, "-jar", JAR_FROM_TASK]):
        answer = _run([machine.executable, *arguments], task, _ARCHIVE_S)
        if answer is None or answer[0] != 0:
            return None
    if not made.is_file():
        return None
    made.chmod(0o644)
    made.rename(target)
    return target


def _run(command: Sequence[str], folder: Path, deadline_s: float) -> tuple[int, str] | None:
    """Exit status and output; ``None`` if there was no answer in time."""
    try:
        answer = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=deadline_s,
            env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.returncode, answer.stdout.decode(errors="replace").strip()
