"""Promises beyond the forked interpreter: programs, wrappers, extensions, the doors inside, host folders and container images.

Scenarios like those next door, registered in the same table; a scenario here brings its own programs and says so in its specs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from sandbox_scenarios import PYTHON, USUAL, World, main, scenario

from lambent.errors import SandboxFault
from lambent.sandbox.driver import Mount, Program, SandboxExit

SHELL = "provided.al2023"
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def script(world: World, text: str, name: str = "bootstrap", mode: int = 0o755) -> str:
    """A folder of code that holds the executable ``name``."""
    folder = Path(world.function())
    (folder / name).write_text(text)
    (folder / name).chmod(mode)
    return str(folder)


async def ended(world: World, text: str, **changes: Any) -> tuple[SandboxExit, str]:
    """Run a shell script to its end; how it ended, and what it printed."""
    given: dict[str, Any] = {"runtime": SHELL, "program": Program(("/var/task/bootstrap",)), "environment": ENVIRONMENT, **changes}
    environment = await world.start(code_dir=script(world, text), **given)
    how = await asyncio.wait_for(environment.sandbox.exited, 20)
    return how, environment.logs()


async def line_of(descriptor: int) -> str:
    """The next that arrives in a log pipe."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: readable.done() or readable.set_result(None))
    try:
        await asyncio.wait_for(readable, 20)
        return os.read(descriptor, 65_536).decode()
    finally:
        loop.remove_reader(descriptor)


__all__ = ["main"]  # for the program next door

WITH_THEIR_OWN_PROGRAM = {  # whatever the runtime of the world is
    "a_program_gets_its_arguments_folder_and_environment",
    "a_program_is_found_on_the_path",
    "what_cannot_be_executed_ends_as_in_a_shell",
    "the_shell_is_bash",
    "signals_have_their_usual_meaning",
    "terminate_reaches_the_program",
    "a_wrapper_starts_python",
    "an_image_is_its_own_root",
}

# -- programs -----------------------------------------------------------------------------------------------------------------------


@scenario()
async def a_program_gets_its_arguments_folder_and_environment(world: World) -> None:
    text = '#!/bin/sh\necho "$1|$FOO|$(pwd)"\nexit 7\n'
    program = Program(("/var/task/bootstrap", "one two"), cwd="/")
    how, said = await ended(world, text, program=program, environment={**ENVIRONMENT, "FOO": "a b"})
    assert (how.code, how.signal) == (7, None)
    assert said == "one two|a b|/\n"


@scenario()
async def a_program_is_found_on_the_path(world: World) -> None:
    how, said = await ended(world, "", program=Program(("sh", "-c", "echo found; exit 3")))
    assert (how.code, said) == (3, "found\n")


@scenario()
async def what_cannot_be_executed_ends_as_in_a_shell(world: World) -> None:
    for argv, status in ((("/nothing",), 127), (("nothing-on-the-path",), 127), (("/etc",), 126)):
        how, _ = await ended(world, "", program=Program(argv))
        assert (how.code, how.signal) == (status, None), argv
    environment = await world.start(
        code_dir=script(world, "#!/bin/sh\n", mode=0o644), runtime=SHELL, program=Program(("/var/task/bootstrap",)), environment=ENVIRONMENT
    )
    assert (await environment.sandbox.exited).code == 126
    how, _ = await ended(world, "#!/no/such/interpreter\n")
    assert how.code == 127


@scenario("isolation")
async def the_shell_is_bash(world: World) -> None:
    how, said = await ended(world, "#!/bin/sh\nset -euo pipefail\nfalse | true && echo wrong\n")
    assert (how.code, said) == (1, "")


@scenario()
async def signals_have_their_usual_meaning(world: World) -> None:
    """Python ignores SIGPIPE; a program that it executes must not."""
    how, said = await ended(world, "#!/bin/bash\nyes | head -n 1\necho ${PIPESTATUS[0]}\n")
    assert (how.code, said) == (0, "y\n141\n")


@scenario()
async def terminate_reaches_the_program(world: World) -> None:
    for frozen in (False, True):
        text = "#!/bin/bash\ntrap 'echo told; exit 4' TERM\necho ready\nwhile true; do read -t 1000 <&3; done\n"
        environment = await world.start(
            code_dir=script(world, text), runtime=SHELL, program=Program(("/var/task/bootstrap",)), environment=ENVIRONMENT
        )
        assert await line_of(environment.sandbox.logs) == "ready\n"
        if frozen:
            environment.sandbox.freeze()
        environment.sandbox.terminate()
        assert (await asyncio.wait_for(environment.sandbox.exited, 20)).code == 4
        assert environment.logs() == "told\n"


@scenario()
async def a_wrapper_starts_python(world: World) -> None:
    """As with AWS_LAMBDA_EXEC_WRAPPER: the script gets the interpreter's command line, and what it sets is seen."""
    folder = script(world, '#!/bin/sh\nexport ADDED=yes\nexec "$@"\n', "wrap")
    place = "/var/task" if world.driver.report.driver == "namespaces" else folder
    environment = await world.started(
        code_dir=folder, runtime=SHELL, program=Program((f"{place}/wrap", *PYTHON, "app.handler")), environment=ENVIRONMENT
    )
    assert await environment.call("import os; result = os.environ['ADDED']") == "yes"
    how, _ = await ended(world, "", program=Program(("/opt/nothing", *PYTHON)))
    assert how.code == 127


@scenario("isolation")
async def a_python_runtime_executes_too(world: World) -> None:
    text = '#!/bin/sh\ngrep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status\n'
    how, said = await ended(world, text, runtime=world.runtime)
    assert how.code == 0
    assert [line.split()[1].strip("0") for line in said.splitlines()] == ["", "", "1", "2"]


@scenario()
async def held_until_released(world: World) -> None:
    environment = await world.start(hold=True)
    frame = asyncio.ensure_future(environment.frame())
    done, _ = await asyncio.wait([frame], timeout=0.2)  # to see that nothing happens takes time
    assert not done
    environment.sandbox.release()
    environment.sandbox.release()
    assert await frame is not None
    assert await environment.call("result = 1") == 1


@scenario()
async def tmp_outlives_its_sandbox_until_it_is_forgotten(world: World) -> None:
    folder = "import os\nfolder = os.environ.get('TMPDIR', '/tmp')\n"
    leave = (
        folder
        + """
os.makedirs(folder + "/a/b")
with open(folder + "/a/b/file", "w") as file:
    file.write("kept")
os.chmod(folder + "/a/b/file", 0o600)
os.symlink("/etc/hostname", folder + "/a/link")
result = os.getpid()
"""
    )
    find = (
        folder
        + """
with open(folder + "/a/b/file", "r+") as file:
    result = [file.read(), sorted(os.listdir(folder + "/a"))]
    file.write(" more")
os.mkdir(folder + "/new")
os.rmdir(folder + "/new")
owners = {os.lstat(os.path.join(place, name)).st_uid for place, _, files in os.walk(folder + "/a") for name in [".", *files]}
result.append(owners == {os.getuid()})
"""
    )
    kept: dict[str, Any] = {"sandbox_id": uuid.uuid4().hex, "keep_tmp": True}
    environment = await world.started(**kept)
    await environment.call(leave)
    await environment.sandbox.kill()
    for text in ("kept", "kept more"):
        environment = await world.started(**kept)
        assert await environment.call(find) == [text, ["b", "link"], True]
        await environment.send("import os; os._exit(1)")  # this time it goes by itself
        await environment.sandbox.exited
        await environment.sandbox.kill()
    world.driver.forget(kept["sandbox_id"])
    environment = await world.started(**kept)
    assert await environment.call(folder + "result = os.path.exists(folder + '/a')") is False
    world.driver.forget(kept["sandbox_id"])  # and what lives goes on, but nothing of it is kept
    await environment.call(leave)
    await environment.sandbox.kill()
    environment = await world.started(**kept)
    assert await environment.call(folder + "result = os.path.exists(folder + '/a')") is False


# -- the doors inside ------------------------------------------------------------------------------------------------------------------


@scenario()
async def the_apis_have_a_door(world: World) -> None:
    environment = await world.started()
    listener = environment.sandbox.api_listener
    code = """
import os, socket
host, port = os.environ.get("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001").split(":")
result = socket.create_connection((host, int(port))).recv(10).decode()
"""
    await environment.send(code)
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    with connection:
        await asyncio.get_running_loop().sock_sendall(connection, b"hello")
    assert await environment.answer() == "hello"


@scenario()
async def the_owner_connects_to_a_server_inside(world: World) -> None:
    environment = await world.started()
    code = "import builtins, socket; builtins.server = socket.create_server(('127.0.0.1', 0)); result = server.getsockname()[1]"
    port = await environment.call(code)
    with await environment.sandbox.open_socket() as client:
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        await environment.send("result = server.accept()[0].recv(5).decode()")
        await asyncio.get_running_loop().sock_sendall(client, b"hello")
        assert await environment.answer() == "hello"
    if world.driver.report.driver == "namespaces":
        await environment.sandbox.kill()
        try:
            (await environment.sandbox.open_socket()).close()
        except SandboxFault:
            return
        raise AssertionError("a socket in the network of a sandbox that is gone")


# -- extensions ------------------------------------------------------------------------------------------------------------------------


def layers(world: World, **extensions: str) -> str:
    """A folder for /opt with these executables in ``extensions``."""
    folder = Path(world.function())
    (folder / "extensions").mkdir()
    for name, text in extensions.items():
        (folder / "extensions" / name).write_text(text)
        (folder / "extensions" / name).chmod(0o755)
    return str(folder)


def names_of(world: World, opt: str, *names: str) -> tuple[str, ...]:
    return tuple(f"/opt/extensions/{name}" for name in names)


@scenario()
async def extensions_run_beside_the_runtime(world: World) -> None:
    opt = layers(world, one='#!/bin/sh\necho "from $0, ${_HANDLER-no handler}, $FOO"\nread forever < /tmp/nothing\nsleep 1000\n')
    environment = await world.started(
        opt_dir=opt, extensions=names_of(world, opt, "one"), environment={**USUAL, "FOO": "bar", "_HANDLER": "app.handler"}
    )
    assert (await line_of(environment.sandbox.extension_logs)).splitlines()[0].endswith("/extensions/one, no handler, bar")
    assert await environment.call("print('mine'); result = 1") == 1
    assert environment.logs() == "mine\n"
    await environment.sandbox.kill()
    await environment.log_end()


@scenario()
async def the_end_of_extensions_is_told(world: World) -> None:
    opt = layers(world, bad="#!/bin/sh\nexit 9\n", killed="#!/bin/sh\nkill -9 $$\n")
    (Path(opt) / "extensions" / "plain").write_text("no program")
    environment = await world.start(opt_dir=opt, extensions=names_of(world, opt, "bad", "killed", "plain", "missing"))
    told: dict[str, SandboxExit] = {}
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(name: str, how: SandboxExit) -> None:
        assert name not in told
        told[name] = how
        if len(told) == 4:
            arrived.set_result(None)

    environment.sandbox.on_extension_exit = hear
    await asyncio.wait_for(arrived, 20)
    assert {name: (how.code, how.signal) for name, how in told.items()} == {
        "bad": (9, None),
        "killed": (None, 9),
        "plain": (126, None),
        "missing": (127, None),
    }
    await environment.ready()
    assert await environment.call("result = 'alive'") == "alive"


@scenario()
async def extensions_outlive_the_runtime_until_they_are_killed(world: World) -> None:
    text = "#!/bin/bash\ntrap 'echo told' USR1\necho up\nwhile true; do sleep 1000 & wait; done\n"
    opt = layers(world, watch=text)
    environment = await world.started(opt_dir=opt, extensions=names_of(world, opt, "watch"))
    assert await line_of(environment.sandbox.extension_logs) == "up\n"
    await environment.send("import os; os._exit(3)")
    assert (await environment.sandbox.exited).code == 3
    ended: list[str] = []
    environment.sandbox.on_extension_exit = lambda name, how: ended.append(name)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.get_running_loop().create_future()), 0.1)
    assert ended == []
    await environment.sandbox.kill()
    await environment.log_end()


@scenario("isolation")
async def extensions_are_as_confined_as_the_function(world: World) -> None:
    text = """#!/bin/sh
grep -E "^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status | tr -s "\\t\\n" "  "
ls /proc/self/fd | tr "\\n" " "
touch /var/task/x /opt/x /x 2> /dev/null && echo writable
echo done
"""
    opt = layers(world, probe=text)
    environment = await world.started(opt_dir=opt, extensions=names_of(world, opt, "probe"))
    said = ""
    while "done" not in said:
        said += await line_of(environment.sandbox.extension_logs)
    uid = await environment.call("import os; result = os.getuid()")
    assert f"Uid: {uid} {uid} {uid} {uid} " in said
    assert "CapBnd: 0000000000000000 " in said
    assert "CapEff: 0000000000000000 " in said
    assert "NoNewPrivs: 1 Seccomp: 2" in said
    assert "0 1 2 3 done" in said  # 3 is the folder that ls reads
    assert "writable" not in said


# -- folders of the host -----------------------------------------------------------------------------------------------------------------


@scenario("mounts")
async def host_folders_are_shared_by_one_owner(world: World) -> None:
    mount = Mount(str(world.shared), "/mnt/data")
    one, two = await world.started(mounts=(mount,)), await world.started(mounts=(mount,))
    await one.call("open('/mnt/data/file', 'w').write('from one')")
    code = """
import os
seen = os.stat("/mnt/data/file")
open("/mnt/data/file", "a").write(" and two")
result = [seen.st_uid == os.getuid(), seen.st_gid == os.getgid()]
"""
    assert await two.call(code) == [True, True]
    file = world.shared / "file"
    assert file.read_text() == "from one and two"
    assert (file.stat().st_uid, file.stat().st_gid) == (world.shared.stat().st_uid, world.shared.stat().st_gid)
    code = "try:\n  os.mknod('/mnt/data/n', 0o20666, os.makedev(1, 3))\nexcept OSError:\n  result = 'no'"
    assert await one.call("import os\n" + code) == "no"
    assert await one.call("import os; f = os.statvfs('/mnt/data').f_flag; result = bool(f & 2) and bool(f & 4)")  # nosuid, nodev
    reader = await world.started(mounts=(Mount(str(world.shared), "/mnt/data", read_only=True),))
    assert await reader.call("result = open('/mnt/data/file').read()") == "from one and two"
    assert await reader.call("try:\n  open('/mnt/data/x', 'w')\nexcept OSError as e:\n  result = e.errno") == 30
    file.unlink()


@scenario("isolation")
async def other_host_folders_are_refused(world: World) -> None:
    inside = world.shared / "link"
    inside.symlink_to("/etc")
    shared = str(world.shared)
    for mount in (Mount("/etc", "/mnt/x"), Mount(str(inside), "/mnt/x"), Mount(shared, "/var/task"), Mount(shared, "/mnt/../etc")):
        try:
            await world.start(mounts=(mount,))
        except SandboxFault:
            continue
        raise AssertionError(mount)
    inside.unlink()
    if world.driver.report.facts["uid"] == "one per sandbox":
        roots = world.shared / "roots"
        roots.mkdir()
        try:
            await world.start(mounts=(Mount(str(roots), "/mnt/x"),))
        except SandboxFault as fault:
            refusal = fault.message
        else:
            refusal = ""
        assert "belongs to root" in refusal
    assert await (await world.started()).call("result = 1") == 1


# -- container images ----------------------------------------------------------------------------------------------------------------------


def image(world: World) -> tuple[str, ...]:
    """Two layers: the programs of this machine, and one that hides and adds something."""
    bottom, top = world.root / f"bottom{len(os.listdir(world.root))}", world.root / f"top{len(os.listdir(world.root))}"
    for name in ("bin", "app", "etc", "home"):
        (bottom / name).mkdir(parents=True)
    (bottom / "etc" / "passwd").write_text("image:x:7:7::/:/bin/sh\n")
    (bottom / "app" / "below").write_text("below")
    (bottom / "app" / "both").write_text("below")
    for program in ("/bin/bash", "/bin/cat", "/bin/ls", "/bin/touch", "/usr/bin/id", "/bin/grep"):
        shutil.copy(program, bottom / "bin")
        _copy_libraries(program, bottom)
    (bottom / "bin" / "sh").symlink_to("bash")
    (top / "app").mkdir(parents=True)
    (top / "app" / "both").write_text("top")
    (top / "app" / "entry").write_text(ENTRY)
    (top / "app" / "entry").chmod(0o755)
    return str(bottom), str(top)


ENTRY = """#!/bin/sh
echo "$(pwd) $(cat /app/below) $(cat both) $1"
id -un
ls / /proc/self/fd
grep -c image /etc/passwd
touch /tmp/mine && echo tmp
touch /app/x /etc/x /x 2> /dev/null && echo writable
test -e /var/runtime -o -e /usr/lib/python3 -o -e /var/lang && echo host
: > /dev/null && echo null
while read name value; do case $name in CapEff:|NoNewPrivs:|Seccomp:) echo "$name$value";; esac; done < /proc/self/status
exit 11
"""


def _copy_libraries(program: str, root: Path) -> None:
    for word in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split():
        if word.startswith("/"):
            target = root / word.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(word, target)


@scenario("isolation")
async def an_image_is_its_own_root(world: World) -> None:
    program = Program(("./entry", "argument"), cwd="/app")
    how, said = await ended(world, "", image_layers=image(world), program=program, environment=ENVIRONMENT, runtime="")
    lines = said.splitlines()
    assert how.code == 11, said
    assert lines[0] == "/app below top argument"
    assert lines[1] == "sbx_user1051"
    assert "writable" not in lines
    assert "host" not in lines
    assert "tmp" in lines
    assert "null" in lines
    assert lines[-3:] == ["CapEff:0000000000000000", "NoNewPrivs:1", "Seccomp:2"]
