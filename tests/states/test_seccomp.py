"""The filter, run twice: by a small interpreter of classic BPF (both architectures), and by the kernel (this one)."""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lambent.sandbox import seccomp

MACHINE = os.uname().machine
ARCHES = sorted(seccomp.AUDIT_ARCH)
native = pytest.mark.skipif(
    MACHINE not in seccomp.AUDIT_ARCH or not sys.platform.startswith("linux"), reason=f"no filter for this machine ({MACHINE})"
)
PROGRAMS = {arch: seccomp.compile_filter(arch) for arch in ARCHES}


def run(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would answer: classic BPF over ``struct seccomp_data``."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(value & (2**64 - 1) for value in padded))
    instructions = [struct.unpack_from("=HBBI", program, offset) for offset in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        code, yes, no, constant = instructions[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x05:
            at += constant
        elif code == 0x15:
            at += yes if accumulator == constant else no
        elif code == 0x35:
            at += yes if accumulator >= constant else no
        elif code == 0x45:
            at += yes if accumulator & constant else no
        elif code == 0x06:
            return constant
        else:
            raise AssertionError(f"instruction {code:#x}")


def answer(arch: str, name: str, *arguments: int) -> int:
    return run(PROGRAMS[arch], seccomp.AUDIT_ARCH[arch], seccomp.NUMBERS[arch][name], arguments)


@pytest.mark.parametrize("arch", ARCHES)
def test_every_denied_call_is_refused_and_nothing_else_is(arch: str) -> None:
    denied, absent = set(seccomp.DENIED.split()), set(seccomp.ABSENT.split())
    for name in seccomp.NUMBERS[arch]:
        if name in denied:
            assert answer(arch, name, *[0] * 6) == seccomp.REFUSE, name
        elif name in absent:
            assert answer(arch, name) == seccomp.UNKNOWN, name
        elif name not in ("socket", "socketpair"):
            assert answer(arch, name, *[0] * 6) == seccomp.ALLOW, name


@pytest.mark.parametrize("arch", ARCHES)
def test_numbers_that_no_table_knows_do_not_exist(arch: str) -> None:
    known = set(seccomp.NUMBERS[arch].values())
    for number in [*range(700), 4096, 0x3FFFFFFF]:
        if number not in known:
            assert run(PROGRAMS[arch], seccomp.AUDIT_ARCH[arch], number) == seccomp.UNKNOWN, number


@pytest.mark.parametrize("arch", ARCHES)
def test_another_architecture_is_death(arch: str) -> None:
    for other in [0x40000003, 0x40000028, *(seccomp.AUDIT_ARCH[entry] for entry in ARCHES if entry != arch)]:
        assert run(PROGRAMS[arch], other, seccomp.NUMBERS[arch]["getpid"]) == seccomp.KILL
    if arch == "x86_64":
        assert run(PROGRAMS[arch], seccomp.AUDIT_ARCH[arch], 0x40000000 | 39) == seccomp.KILL


@pytest.mark.parametrize("arch", ARCHES)
def test_arguments_decide(arch: str) -> None:
    thread = 0x3D0F00  # what pthread_create passes
    assert answer(arch, "clone", thread) == seccomp.ALLOW
    assert answer(arch, "clone", 0x4111) == seccomp.ALLOW  # vfork of posix_spawn
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(arch, "clone", flag | signal.SIGCHLD) == seccomp.REFUSE
        assert answer(arch, "unshare", flag) == seccomp.REFUSE
    assert answer(arch, "unshare", 0x80) == seccomp.REFUSE
    assert answer(arch, "unshare", 0x400) == seccomp.ALLOW  # CLONE_FILES
    for query in (0, 0xFFFFFFFF, 0x40000):
        assert answer(arch, "personality", query) == seccomp.ALLOW
    assert answer(arch, "personality", 0x0400000) == seccomp.REFUSE  # READ_IMPLIES_EXEC
    assert answer(arch, "ioctl", 0, 0x5413) == seccomp.ALLOW
    assert answer(arch, "ioctl", 0, 0x5412) == answer(arch, "ioctl", 0, 0x541C) == seccomp.REFUSE
    assert answer(arch, "ioctl", 0, (7 << 32) | 0x5412) == seccomp.REFUSE, "the kernel ignores the high half"
    assert answer(arch, "mknodat", -100, 0, 0o010600) == seccomp.ALLOW
    assert answer(arch, "mknodat", -100, 0, 0o020600, 0x0103) == seccomp.REFUSE
    assert answer(arch, "mknodat", -100, 0, 0o060600, 0x0800) == seccomp.REFUSE


@pytest.mark.parametrize("arch", ARCHES)
def test_sockets(arch: str) -> None:
    nonblocking = 0o4000 | 0o2000000
    allowed = [(1, 1, 0), (1, 2, 0), (1, 5, 0), (2, 1, 0), (2, 1, 6), (2, 2, 17), (10, 1, 0), (10, 2, 0), (2, 2, 1), (16, 3, 0), (16, 2, 0)]
    for family, kind, protocol in allowed:
        assert answer(arch, "socket", family, kind | nonblocking, protocol) == seccomp.ALLOW, (family, kind, protocol)
    refused = [(2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 0x300), (17, 2, 0), (2, 10, 0), (16, 3, 9), (16, 3, 12), (1, 3, 0)]
    for family, kind, protocol in refused:
        assert answer(arch, "socket", family, kind, protocol) == seccomp.REFUSE, (family, kind, protocol)
    for family in (0, 15, 21, 29, 30, 38, 40, 44):  # key, rds, can, tipc, alg, vsock, xdp
        assert answer(arch, "socket", family, 1, 0) == seccomp.NO_FAMILY, family
    assert answer(arch, "socket", 2, 1, 262) == answer(arch, "socket", 2, 1, 132) == seccomp.NO_PROTOCOL  # multipath TCP, SCTP
    assert answer(arch, "socketpair", 1, 1, 0) == seccomp.ALLOW
    assert answer(arch, "socketpair", 30, 1, 0) == seccomp.NO_FAMILY


def test_no_denied_name_is_misspelt() -> None:
    assert seccomp.unlisted("x86_64") & seccomp.unlisted("aarch64") == set()


@pytest.mark.parametrize(
    ("arch", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_tables_agree_with_the_headers_of_this_machine(arch: str, header: str) -> None:
    if not os.path.exists(header):
        pytest.skip(f"{header} is not installed (Debian: linux-libc-dev)")
    theirs = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)\b", Path(header).read_text()))
    ours = seccomp.NUMBERS[arch]
    both = set(ours) & set(theirs)
    assert {name: ours[name] for name in both} == {name: int(theirs[name]) for name in both}
    assert len(both) > 250


def test_unknown_machines_are_refused() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.compile_filter("riscv64")


# ---- by the kernel


def under_filter(argv: list[str]) -> subprocess.CompletedProcess[str]:
    def bind() -> None:
        seccomp.load(PROGRAMS[MACHINE])

    return subprocess.run(argv, preexec_fn=bind, capture_output=True, text=True, timeout=60, check=False)


def python_under_filter(code: str, python: str = sys.executable) -> str:
    done = under_filter([python, "-c", textwrap.dedent(code)])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@native
def test_the_kernel_refuses_each_denied_call() -> None:
    skipped = {"vhangup"}  # without arguments, and so not harmless should it be let through
    numbers = {name: seccomp.NUMBERS[MACHINE].get(name) for name in (seccomp.DENIED + seccomp.ABSENT).split() if name not in skipped}
    output = python_under_filter(f"""
        import ctypes, json
        libc = ctypes.CDLL(None, use_errno=True)
        answers = {{}}
        for name, number in {numbers!r}.items():
            if number is not None:
                result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
                answers[name] = [result, ctypes.get_errno()]
        print(json.dumps(answers))
    """)
    answers = json.loads(output)
    absent = set(seccomp.ABSENT.split())
    assert answers == {name: [-1, errno.ENOSYS if name in absent else errno.EPERM] for name in answers}
    assert len(answers) > 50


@native
def test_namespaces_sockets_devices_and_terminals_are_refused() -> None:
    output = python_under_filter("""
        import ctypes, errno, fcntl, os, socket, tempfile
        libc = ctypes.CDLL(None, use_errno=True)
        def refusal(call, *arguments):
            try:
                call(*arguments)
            except OSError as error:
                return errno.errorcode[error.errno]
            return "done"
        def unshare():
            if libc.unshare(0x10000000) != 0:
                raise OSError(ctypes.get_errno(), "")
        master, slave = os.openpty()
        folder = tempfile.mkdtemp()
        print(
            refusal(unshare),
            refusal(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
            refusal(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, 0),
            refusal(socket.socket, 40, socket.SOCK_STREAM, 0),
            refusal(fcntl.ioctl, slave, 0x5412, b"x"),
            refusal(os.mknod, folder + "/device", 0o020600, os.makedev(1, 3)),
            refusal(os.mkfifo, folder + "/pipe"),
            refusal(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0),
            refusal(socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM),
        )
        os.unlink(folder + "/pipe")
        os.rmdir(folder)
    """)
    assert output == "EPERM EPERM EPERM EAFNOSUPPORT EPERM EPERM done done done"


@native
@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 and 32-bit calls are x86's")
def test_foreign_entries_kill_the_process() -> None:
    x32 = under_filter([sys.executable, "-c", "import ctypes; ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))"])
    assert x32.returncode == -signal.SIGSYS
    code = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
    assert under_filter([sys.executable, "-c", code]).returncode == -signal.SIGSYS


@native
def test_the_filter_cannot_be_taken_off_and_binds_children() -> None:
    output = python_under_filter("""
        import subprocess, sys
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        code = "import os\\ntry:\\n os.chroot('/')\\nexcept OSError as error:\\n print(error.errno)"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        print(status["Seccomp"].strip(), status["NoNewPrivs"].strip(), child)
    """)
    assert output == f"2 1 {errno.EPERM}"


EVERYDAY = """
import asyncio, concurrent.futures, ctypes, multiprocessing, os, socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time

def square(value):
    return value * value

async def main():
    process = await asyncio.create_subprocess_exec("sh", "-c", "echo hello | tr a-z A-Z", stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    server = await asyncio.start_server(lambda reader, writer: (writer.write(b"pong"), writer.close()), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    reply = await reader.read()
    writer.close()
    server.close()
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)
    return output.strip() + reply

if __name__ == "__main__":
    threads = [threading.Thread(target=square, args=(2,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(square, [1, 2, 3])) == [1, 4, 9]
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, [3, 4]) == [9, 16]
    assert subprocess.check_output(["sh", "-c", "ls / | wc -l"]).strip().isdigit()
    assert asyncio.run(main()) == b"HELLOpong"
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(os.path.join(folder, "db"))
        connection.execute("create table t (x)")
        connection.commit()
        connection.close()
    socket.if_nameindex()
    ssl.create_default_context()
    print("fine")
"""


def interpreters() -> list[str]:
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for path in sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3.*"))):
        version = re.fullmatch(r"python(3\.(\d+))", os.path.basename(path))
        if version and 8 <= int(version[2]) <= 14:
            found.setdefault(version[1], path)
    return [found[version] for version in sorted(found)]


@native
@pytest.mark.parametrize("python", interpreters(), ids=lambda path: os.path.basename(path))
def test_everyday_python_runs(python: str, tmp_path: Path) -> None:
    script = tmp_path / "everyday.py"
    script.write_text(EVERYDAY)
    done = under_filter([python, str(script)])
    assert done.stdout.strip() == "fine", done.stderr


@native
@pytest.mark.parametrize("python", interpreters(), ids=lambda path: os.path.basename(path))
def test_every_interpreter_can_load_the_filter(python: str) -> None:
    code = f"""
import importlib.util, os
spec = importlib.util.spec_from_file_location("seccomp", {seccomp.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
program = module.compile_filter({MACHINE!r})
assert len(program) == {len(PROGRAMS[MACHINE])}
module.load(program)
try:
    os.chroot("/")
except PermissionError:
    print("bound")
"""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "bound", done.stderr


@native
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_runs(tmp_path: Path) -> None:
    script = tmp_path / "everyday.js"
    script.write_text("""
const fs = require('fs'), http = require('http'), {Worker} = require('worker_threads'), {execSync} = require('child_process');
const server = http.createServer((request, response) => response.end('pong')).listen(0, '127.0.0.1', () => {
  http.get({port: server.address().port, host: '127.0.0.1', agent: false}, response => response.on('data', data => {
    fs.promises.readFile(__filename).then(() => {
      new Worker('require("worker_threads").parentPort.postMessage(42)', {eval: true}).on('message', answer => {
        console.log(data.toString(), execSync('echo hello').toString().trim(), answer, require('os').networkInterfaces() !== null);
        server.close();
      });
    });
  }));
});
""")
    done = under_filter(["node", str(script)])
    assert done.stdout.strip() == "pong hello 42 true", done.stderr


@native
@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
def test_java_runs(tmp_path: Path) -> None:
    (tmp_path / "Everyday.java").write_text("""
import java.net.*; import java.net.http.*; import java.nio.file.*; import java.util.concurrent.*; import java.util.stream.*;
public class Everyday {
  public static void main(String[] arguments) throws Exception {
    var pool = Executors.newFixedThreadPool(4);
    int sum = pool.submit(() -> IntStream.range(0, 1000).parallel().sum()).get();
    pool.shutdown();
    Path file = Files.createTempFile("everyday", ""); Files.writeString(file, "x"); Files.delete(file);
    var server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
    var client = new Socket(server.getInetAddress(), server.getLocalPort());
    var process = new ProcessBuilder("echo", "hello").start();
    String hello = new String(process.getInputStream().readAllBytes()).trim();
    NetworkInterface.getNetworkInterfaces();
    client.close(); server.close();
    System.out.println(sum + " " + hello);
  }
}
""")
    source = str(tmp_path / "Everyday.java")
    argv = ["java", "-XX:TieredStopAtLevel=1", source]
    plain = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if plain.returncode != 0:
        pytest.skip("this java runs no source file (a JDK does)")
    done = under_filter(argv)
    assert done.stdout.strip() == "499500 hello", done.stderr


@native
def test_load_reports_a_broken_program() -> None:
    code = f"""
import importlib.util, struct
spec = importlib.util.spec_from_file_location("seccomp", {seccomp.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
try:
    module.load(struct.pack("=HBBI", 0x20, 0, 0, 0))  # ends without a verdict
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(errno.EINVAL), done.stderr
