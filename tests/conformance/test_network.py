"""Egress, in a world of its own: every test forks, makes a network namespace that plays the host and one that plays the internet.

    sandbox(s) ── lmb… ── host 198.51.100.2 ── 198.51.100.1 internet: 203.0.113.9 and 169.254.169.254

The interfaces of this machine are never touched. A test's body runs in the child; what it raises fails the test.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import traceback
from collections.abc import Callable, Iterator

import pytest

from lambent.errors import SandboxFault
from lambent.sandbox import kernel, netlink, network
from lambent.sandbox.attempt import attempt
from lambent.sandbox.network import BLOCKS, Network, probe, resolvers

WORLD_SERVER, METADATA, HOST, HOST_ALIAS = "203.0.113.9", "169.254.169.254", "198.51.100.2", "10.9.9.9"

ability = probe()
able = pytest.mark.skipif(not ability.full, reason="; ".join(ability.missing))


class World:
    """Two network namespaces and the wire between them. The process is in the host's unless it says otherwise."""

    def __init__(self) -> None:
        self.listeners: list[socket.socket] = []
        self.internet = self._make_namespace()
        self.host = self._make_namespace()
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("0")  # a new namespace has this from the machine, where a server may be running
        with netlink.Netlink() as link:
            link.request((netlink.NEWLINK, netlink.CREATE, netlink.veth("wan", "wan", self.internet, b"\x02wire!", 1400, 0)))
        for namespace, own, others in ((self.host, HOST, None), (self.internet, "198.51.100.1", "198.51.100.2")):
            with self.inside(namespace), netlink.Netlink() as link:
                wan = socket.if_nametoindex("wan")
                link.request(*netlink.raise_link("wan"), (netlink.NEWADDR, netlink.CREATE, netlink.address(wan, socket.inet_aton(own))))
                target, prefix = (socket.inet_aton(others), 32) if others else (bytes(4), 0)
                link.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(target, prefix, 4, wan)))
        self.add_address(self.internet, WORLD_SERVER)
        self.add_address(self.internet, METADATA)
        self.add_address(self.host, HOST_ALIAS)

    def _make_namespace(self) -> int:
        kernel.unshare(kernel.CLONE_NEWNET)
        with netlink.Netlink() as link:
            link.request((netlink.SETLINK, 0, netlink.link(1, netlink.IFF_UP)))
        return os.open("/proc/self/ns/net", os.O_RDONLY)

    @contextlib.contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        kernel.setns(namespace, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            kernel.setns(self.host, kernel.CLONE_NEWNET)

    def add_address(self, namespace: int, text: str) -> None:
        with self.inside(namespace), netlink.Netlink() as link:
            link.request((netlink.NEWADDR, netlink.CREATE, netlink.address(1, socket.inet_aton(text))))

    def sandbox(self) -> int:
        namespace = self._make_namespace()
        kernel.setns(self.host, kernel.CLONE_NEWNET)
        return namespace

    def listen(self, namespace: int, address: str, port: int) -> socket.socket:
        with self.inside(namespace):
            server = socket.create_server((address, port))
        self.listeners.append(server)
        return server

    def connect(self, namespace: int, address: str, port: int, seconds: float = 5.0) -> str:
        """ "open", or the name of the error. ``seconds`` bounds what should never happen, or a silent drop."""
        with self.inside(namespace), socket.socket() as client:
            client.settimeout(seconds)
            try:
                client.connect((address, port))
            except OSError as error:
                return type(error).__name__ if isinstance(error, TimeoutError) else os.strerror(error.errno or 0)
            return "open"


def in_a_world(body: Callable[[World], None]) -> None:
    def run() -> str:
        try:
            body(World())
        except BaseException:
            raise OSError(traceback.format_exc()) from None
        return ""

    tried = attempt(run, seconds=60)
    assert tried.ok, tried.detail


@contextlib.contextmanager
def opened(mode: str = "full", blocks: tuple[str, ...] = BLOCKS) -> Iterator[Network]:
    ours = Network(mode, blocks)
    ours.open()
    try:
        yield ours
    finally:
        ours.close()


REFUSED = "Connection refused"


@able
def test_the_world_can_be_reached_from_the_hosts_address() -> None:
    def body(world: World) -> None:
        with opened() as ours:
            inside = world.sandbox()
            assert ours.attach(inside, 7) == "10.113.0.9"
            server = world.listen(world.internet, WORLD_SERVER, 80)
            with world.inside(inside):
                client = socket.create_connection((WORLD_SERVER, 80), 5)
            seen, peer = server.accept()
            assert peer[0] == HOST, "masqueraded"
            client.sendall(b"x" * 100_000)
            received = 0
            while received < 100_000:
                received += len(seen.recv(65536))
            seen.sendall(b"answer")
            assert client.recv(10) == b"answer"
            with world.inside(world.internet):
                echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                echo.bind((WORLD_SERVER, 53))
            with world.inside(inside):
                asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asker.sendto(b"name?", (WORLD_SERVER, 53))
            question, source = echo.recvfrom(100)
            echo.sendto(question.upper(), source)
            assert asker.recv(100) == b"NAME?"

    in_a_world(body)


@able
def test_what_is_the_hosts_is_refused() -> None:
    def body(world: World) -> None:
        with opened() as ours:
            inside = world.sandbox()
            ours.attach(inside, 0)
            listeners = [world.listen(world.host, "0.0.0.0", 8080)]
            for address in (HOST, HOST_ALIAS, "127.0.0.1", "127.0.0.2"):
                assert world.connect(world.host, address, 8080) == "open"
                assert world.connect(inside, address, 8080) == REFUSED, address
            with world.inside(world.host):
                datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                datagrams.bind(("0.0.0.0", 53))
            with world.inside(inside), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.settimeout(5)
                asker.connect((HOST, 53))
                asker.send(b"name?")
                with pytest.raises(ConnectionRefusedError):
                    asker.recv(100)
            assert not select.select([datagrams, *listeners[1:]], [], [], 0)[0]

    in_a_world(body)


@able
def test_an_address_rewritten_by_another_table_is_still_the_hosts() -> None:
    def body(world: World) -> None:
        with opened() as ours:
            inside = world.sandbox()
            ours.attach(inside, 0)
            server = world.listen(world.internet, WORLD_SERVER, 80)
            rule = f"ip daddr {HOST} tcp dport 9090 dnat to {WORLD_SERVER}:80"
            chain = f"chain published {{ type nat hook prerouting priority -100; {rule}; }}"
            subprocess.run(["nft", "-f", "-"], input=f"table ip other {{\n{chain}\n}}\n", text=True, check=True)
            assert world.connect(inside, HOST, 9090) == REFUSED
            assert world.connect(inside, WORLD_SERVER, 80) == "open"
            server.close()

    in_a_world(body)


@able
def test_metadata_and_mail_are_refused() -> None:
    def body(world: World) -> None:
        with opened() as ours:
            inside = world.sandbox()
            ours.attach(inside, 0)
            servers = [world.listen(world.internet, METADATA, 80), world.listen(world.internet, WORLD_SERVER, 25)]
            for server in servers:
                address, port = server.getsockname()
                assert world.connect(world.host, address, port) == "open", "the host itself can"
                assert world.connect(inside, address, port) == REFUSED
            with world.inside(inside), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as shout:
                shout.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                shout.sendto(b"anyone?", ("255.255.255.255", 67))  # leaves the sandbox, and goes nowhere

    in_a_world(body)


@able
def test_sandboxes_cannot_reach_each_other_nor_anyone_them() -> None:
    def body(world: World) -> None:
        with opened() as ours:
            one, two = world.sandbox(), world.sandbox()
            ours.attach(one, 1)
            address = ours.attach(two, 2)
            server = world.listen(two, "0.0.0.0", 8080)
            assert world.connect(two, address, 8080) == "open", "its own"
            server.accept()
            assert world.connect(one, address, 8080) == REFUSED
            assert world.connect(one, "10.113.0.200", 8080) == REFUSED, "nobody has that address yet"
            assert world.connect(world.host, address, 8080) == REFUSED
            with world.inside(world.internet), netlink.Netlink() as link:
                wan = socket.if_nametoindex("wan")
                link.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(socket.inet_aton("10.113.0.0"), 16, 4, wan)))
            assert world.connect(world.internet, address, 8080, seconds=0.3) == "TimeoutError", "dropped"
            assert not select.select([server], [], [], 0)[0]

    in_a_world(body)


@able
def test_there_is_no_ipv6_between_sandbox_and_host() -> None:
    def body(world: World) -> None:
        with opened() as ours:
            inside = world.sandbox()
            ours.attach(inside, 0)
            for namespace in (world.host, inside):
                with world.inside(namespace), open("/proc/thread-self/net/if_inet6") as file:
                    assert [line.split()[-1] for line in file if line.split()[-1] not in ("lo", "wan")] == []
            with (
                world.inside(inside),
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker,
                pytest.raises(OSError, match="unreachable"),
            ):
                asker.connect(("fd00:ec2::254", 80))

    in_a_world(body)


@able
def test_the_host_does_not_become_a_router_for_others() -> None:
    def body(world: World) -> None:
        with opened():
            neighbour = world.sandbox()  # some other machine on some other wire of the host
            with netlink.Netlink() as link:
                link.request((netlink.NEWLINK, netlink.CREATE, netlink.veth("lan", "lan", neighbour, b"\x02other", 1400, 0)))
                link.request(*netlink.raise_link("lan"))
                lan = socket.if_nametoindex("lan")
                link.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(socket.inet_aton("192.0.2.5"), 32, 4, lan)))
            with world.inside(neighbour), netlink.Netlink() as link:
                lan = socket.if_nametoindex("lan")
                link.request(
                    *netlink.raise_link("lan"), (netlink.NEWADDR, netlink.CREATE, netlink.address(lan, socket.inet_aton("192.0.2.5")))
                )
                link.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(bytes(4), 0, 4, lan)))
            with world.inside(world.internet), netlink.Netlink() as link:
                wan = socket.if_nametoindex("wan")
                link.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(socket.inet_aton("192.0.2.5"), 32, 4, wan)))
            world.listen(world.internet, WORLD_SERVER, 80)
            assert world.connect(neighbour, HOST, 1) == REFUSED, "the wire itself works"
            assert world.connect(neighbour, WORLD_SERVER, 80, seconds=0.3) == "TimeoutError"

    in_a_world(body)


def traces() -> list[str]:
    """What of ours exists in this namespace."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.split()
    with netlink.Netlink() as link:
        routes = [socket.inet_ntoa(packed) for packed, _, protocol, _ in link.routes() if protocol == network.PROTOCOL]
    names = [name for _, name in socket.if_nameindex() if name.startswith("lmb")]
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        forwarding = ["forwarding"] if file.read().strip() == "1" else []
    return [*[name for name in tables if name.startswith("lambent")], *routes, *names, *forwarding]


@able
def test_close_removes_everything() -> None:
    def body(world: World) -> None:
        assert traces() == []
        with opened() as ours:
            for index in range(3):
                ours.attach(world.sandbox(), index)
            found = traces()
            assert {"lambent_a71", "lambent", "10.113.0.0", "10.113.0.4", "lmba71-2", "forwarding"} <= set(found)
            ours.detach(1)
            ours.detach(1)
            assert "lmba71-1" not in traces()
            assert "lmba71-2" in traces()
        assert traces() == []
        assert ours.attach(world.sandbox(), 0) == "", "closed"

    in_a_world(body)


@able
def test_what_a_killed_instance_left_is_swept() -> None:
    def body(world: World) -> None:
        outlives = world.sandbox()
        pid = os.fork()
        if pid == 0:
            dead = Network("full")
            dead.open()
            dead.attach(outlives, 5)
            os._exit(0)
        os.waitpid(pid, 0)
        assert "lmba71-5" in traces()
        with opened() as ours:
            assert ours.block == "10.113.0.0/16"
            assert "lmba71-5" not in traces()
            ours.attach(world.sandbox(), 5)
        assert traces() == []

    in_a_world(body)


@able
def test_an_instance_avoids_the_blocks_of_others() -> None:
    def body(world: World) -> None:
        world.add_address(world.host, "10.113.55.1")
        with netlink.Netlink() as link:
            wan = socket.if_nametoindex("wan")
            link.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(socket.inet_aton("10.114.8.0"), 24, 4, wan)))
        with opened() as first, opened() as second:
            assert (first.block, second.block) == ("10.115.0.0/16", "10.116.0.0/16")
            one, two = world.sandbox(), world.sandbox()
            first.attach(one, 0)
            address = second.attach(two, 0)
            world.listen(world.internet, WORLD_SERVER, 80)
            world.listen(two, "0.0.0.0", 8080)
            assert world.connect(one, WORLD_SERVER, 80) == world.connect(two, WORLD_SERVER, 80) == "open"
            assert world.connect(one, address, 8080) == REFUSED
            first.close()
            assert world.connect(two, WORLD_SERVER, 80) == "open", "forwarding stays for the other"
            with pytest.raises(SandboxFault, match="in use on this host"), opened(blocks=("10.116.0.0/16", "10.113.0.0/16")):
                pass
        assert traces() == []

    in_a_world(body)


@able
def test_a_failed_attach_leaves_nothing() -> None:
    def body(world: World) -> None:
        with opened() as ours:
            inside = world.sandbox()
            ours.attach(inside, 0)
            with pytest.raises(FileExistsError):
                ours.attach(inside, 1)  # has an eth0
            with pytest.raises(OSError, match="beyond"):
                ours.attach(inside, network.CAPACITY)
            assert [name for name in traces() if name.startswith("lmb")] == ["lmba71-0"]
            ours.detach(0)
            assert ours.attach(inside, 0) == "10.113.0.2", "the number can be used again"

    in_a_world(body)


def test_without_nft_there_is_no_egress_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_SEARCH", "/nonexistent")
    found = probe()
    assert not found.full
    assert any("apt-get install nftables" in line for line in found.missing)
    if os.geteuid() == 0:

        def body() -> str:
            kernel.unshare(kernel.CLONE_NEWNET)
            ours = Network("auto")
            ours.open()
            assert (ours.mode, ours.reason) == ("none", "no egress: the program nft is not installed")
            assert ours.attach(-1, 0) == ""
            ours.close()
            return ""

        tried = attempt(body)
        assert tried.ok, tried.detail
    with pytest.raises(SandboxFault, match="egress is set to full, but no egress"):
        Network("full").open()


def test_none_does_nothing() -> None:
    ours = Network("none")
    ours.open()
    assert (ours.mode, ours.reason, ours.attach(-1, 0), ours.resolv_conf) == ("none", "egress is set to none", "", "")
    ours.detach(0)
    ours.close()


@able
def test_auto_says_what_it_gives() -> None:
    def body(world: World) -> None:
        with opened("auto") as ours:
            assert (ours.mode, ours.reason) == ("full", "routed from 10.113.0.0/16 with nftables")

    in_a_world(body)


def test_only_name_servers_that_a_sandbox_can_reach_are_offered() -> None:
    stub = "# a stub\nnameserver 127.0.0.53\noptions edns0\n"
    real = "search lan\nnameserver fe80::1\nnameserver 192.168.1.1\nnameserver 9.9.9.9\nnameserver what\n"
    assert resolvers([stub, real]) == ("192.168.1.1", "9.9.9.9")
    assert resolvers([stub, real], own=["192.168.1.1"]) == ("9.9.9.9",)
    assert resolvers(["nameserver 1.1.1.1\n", real]) == ("1.1.1.1",)
    assert resolvers([stub, ""]) == ()
