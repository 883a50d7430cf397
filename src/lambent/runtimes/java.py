"""Java: which virtual machine runs a runtime, and with what it is started.

The name of a runtime means a feature release, as on AWS: ``java17`` runs on a Java 17 and on nothing else. Who wants another on purpose
says so in the settings, by name: an entry ``java21=/usr/lib/jvm/java-25/bin/java`` of ``[sandbox] interpreters``.

The machine's home is seen as ``/var/lang``, our client (``java_client.py``) at ``/var/runtime``. Options come by two ways, since of two
that contradict each other a virtual machine follows the later: first a file of flags, then ``JAVA_TOOL_OPTIONS``, then the command line.
So what AWS chooses and a function may choose otherwise (collector, compiler, archive, share of memory) is in the file; the command line
only says how much memory there is, which the machine cannot see by itself in a sandbox.

As on AWS the heap gets 85 % of the function's memory (contract 03 §7), and less of very little, so that a function that wants too much is
told by an ``OutOfMemoryError`` with a stack trace and not killed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

from lambent.runtimes import java_client
from lambent.runtimes.java_machines import Machine, ask, machines
from lambent.runtimes.plan import RuntimePlan

HEAP_PERCENT = 85.0
SMALL_HEAP_PERCENT = 56.0  # of 128 MB, up to where this share of the memory is 125 MB
FLAGS = "lambent.flags"
_WARM_FROM = 17  # where a machine that was started ahead can take over a function's environment variables

_making = threading.Lock()


def find(runtime: str, configured: Sequence[str], environ: Mapping[str, str]) -> RuntimePlan | str:
    """A finder of the catalogue. Blocks: compiles the client and writes the class archive if that has not been done yet (seconds)."""
    release = release_of(runtime)
    chosen, found = machines([entry for entry in configured if "=" not in entry], environ)
    named = _explicit(runtime, configured)
    if named is not None:
        answer = ask(named) if os.path.isfile(named) else "there is no such file"
        if isinstance(answer, str):
            return f"[sandbox] interpreters names {named} for {runtime}, but {answer}."
        return _prepared(runtime, answer, [*chosen, *found])
    for group in (chosen, found):
        fitting = [machine for machine in group if machine.major == release]
        if fitting:
            return _prepared(runtime, max(fitting, key=Machine.preference), [*chosen, *found])
    others = sorted({machine.major for machine in (*chosen, *found)})
    having = f"; it has Java {', '.join(map(str, others))}" if others else ""
    return (
        f"Lambent found no Java {release} on this machine for runtime {runtime}{having}. Install a JDK {release}, "
        f"or name a home or a binary of your choice under [sandbox] interpreters."
    )


def release_of(runtime: str) -> int:
    """``java8.al2`` is 8."""
    return int(runtime.removeprefix("java").partition(".")[0])


def _explicit(runtime: str, configured: Sequence[str]) -> str | None:
    """The program of an entry ``<runtime>=<path>``; the last one counts. A home will do."""
    pairs = [entry.partition("=") for entry in configured]
    paths = [os.path.expanduser(path.strip()) for name, equals, path in pairs if equals and name.strip() == runtime]
    if not paths:
        return None
    return os.path.join(paths[-1], "bin", "java") if os.path.isdir(paths[-1]) else paths[-1]


def _prepared(runtime: str, machine: Machine, others: Sequence[Machine]) -> RuntimePlan | str:
    with _making:
        client = java_client.jar([machine, *others])
        if isinstance(client, str):
            return client
        archive = java_client.archive(client, machine)
    entries = [(java_client.JAR, str(client))]
    if archive is not None:
        entries.append((java_client.ARCHIVE, str(archive)))
    command = ("/var/lang/bin/java", *_options(machine), "-jar")
    return RuntimePlan(
        runtime=runtime,
        version=machine.version,
        transport="frames",
        prefix=machine.home,
        runtime_dir=tuple(entries),
        files=((FLAGS, _flags(machine, archive is not None).encode()),),
        argv=(*command, java_client.JAR_FROM_TASK),
        warm=(*command, java_client.JAR_FROM_TASK, "--warm") if machine.major >= _WARM_FROM else (),
        wrapped=(*command, f"/var/runtime/{java_client.JAR}"),  # whatever folder the wrapper has gone to
        environment={"LC_ALL": "C.UTF-8"},  # names of files are UTF-8; the en_US of LANG is not installed everywhere
    )


def _options(machine: Machine) -> list[str]:
    options = [
        f"-XX:Flags=/var/runtime/{FLAGS}",
        "-XX:MaxRAM={memory_mb}m",
        "-Dsun.net.inetaddr.negative.ttl=1",
        "-Dlambent.layers=/opt/java",
    ]
    if machine.major >= 9:  # an archive that does not fit is no reason to tell the function's owner
        options.append("-Xlog:cds=off" if machine.major < 24 else "-Xlog:cds=off,aot=off")
    return options


def _flags(machine: Machine, has_archive: bool) -> str:
    flags = ["+UseSerialGC", "-UsePerfData", f"MaxRAMPercentage={HEAP_PERCENT}", f"MinRAMPercentage={SMALL_HEAP_PERCENT}"]
    if machine.major >= 17:
        flags.append("TieredStopAtLevel=1")  # as AWS has it from Java 17 on
    if has_archive:
        flags.append(f"SharedArchiveFile=/var/runtime/{java_client.ARCHIVE}")
    return "".join(f"{flag}\n" for flag in flags)
