"""What a sandbox may reach: egress like AWS's, with nothing inbound and nothing of the host.

Every sandbox has a network namespace with a loopback and no more; that is ``none``, and costs nothing. ``full`` adds one pair of virtual
interfaces per sandbox, routed (not bridged) through the host:

    sandbox                                     host
    eth0  10.113.0.9/32  ── veth ──  lmb71-7    route 10.113.0.9/32 dev lmb71-7
    default dev eth0                            nftables: refuse what is ours, masquerade the rest

Both ends carry the same MAC address and speak no ARP: on an interface without ARP the kernel addresses every frame to the interface's own
address, which is then also the other end's. So there is no gateway, no neighbour table, no bridge, and no broadcast domain in which
sandboxes could see each other. Neither end gets an IPv6 address, since over IPv6 a host's ``::`` listeners would be near.

The firewall is one nftables table per instance, which knows our interfaces by their group number, so that it never changes while
sandboxes come and go. It refuses, before any other table may rewrite addresses: the host's own addresses, all of them; link-local and
metadata addresses; other sandboxes; port 25, as on AWS. Refusals answer at once, so that a program sees an error and no silence.
Nothing new goes in.

*Blocks.* An instance owns one /16 of ``BLOCKS``: the first that no living instance holds and no route of the host overlaps. The claim is
an abstract Unix socket, which is scoped to the same network namespace as the interfaces and is released by the kernel when the owner
dies, however it dies; whoever claims a block removes what its last owner left. A route that says "unreachable" covers the block meanwhile.

*Forwarding.* A sandbox's packets pass through the host only when ``net.ipv4.ip_forward`` is 1. Where it was 0, the first instance turns
it on and makes the table ``lambent``, which drops every forwarded packet that is not ours, so that the host does not become a router for
others; the last instance turns both back.

An attach is three netlink writes, about a millisecond. Needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN) and the ``nft`` program.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from lambent.errors import SandboxFault
from lambent.sandbox import kernel, netlink
from lambent.sandbox.attempt import attempt

BLOCKS = tuple(f"10.{second}.0.0/16" for second in range(113, 121))
CAPACITY = 65_000  # sandboxes in a block
PROTOCOL = 0x6C  # the owner that our routes name, as ``ip route`` shows it: "proto 108"
_FIRST_HOST = 2
_GROUPS = 0x6C620000
_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

_TABLE = """
table inet {table} {{
  chain arriving {{
    type filter hook prerouting priority -150; policy accept;
    iifgroup {group} meta nfproto ipv6 drop
    iifgroup {group} ip saddr != {block} drop
    iifgroup {group} fib daddr type {{ local, broadcast, anycast }} reject
    iifgroup {group} ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3, {blocks} }} reject
    iifgroup {group} tcp dport 25 reject with tcp reset
  }}
  chain local {{
    type filter hook input priority -10; policy accept;
    iifgroup {group} reject
  }}
  chain passing {{
    type filter hook forward priority -10; policy accept;
    iifgroup {group} oifname "lmb*" reject
    iifgroup {group} tcp dport 25 reject with tcp reset
    oifgroup {group} ct state established accept
    oifgroup {group} ct state related meta l4proto icmp accept
    oifgroup {group} drop
  }}
  chain leaving {{
    type filter hook output priority -10; policy accept;
    oifgroup {group} ct state new reject
  }}
  chain sources {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {block} oifname != "lmb*" masquerade
  }}
}}
"""

_SHARED = """
table inet lambent {
  chain passing {
    type filter hook forward priority -10; policy accept;
    iifname != "lmb*" oifname != "lmb*" drop
  }
}
"""


@dataclass(frozen=True, slots=True)
class EgressAbility:
    """Whether this machine can give ``full`` egress; ``missing`` says what it lacks, one sentence each."""

    full: bool
    missing: tuple[str, ...]


def ruleset(block: str) -> str:
    """The firewall of the instance that owns ``block``, as text for ``nft -f``."""
    return _TABLE.format(table=_table(block), group=_group(block), block=block, blocks=", ".join({*BLOCKS, block}))


def _nft(*arguments: str, script: str = "") -> str:
    program = shutil.which("nft", path=_SEARCH)
    if program is None:
        raise OSError(errno.ENOENT, "the program nft is not installed")
    done = subprocess.run([program, *arguments], input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(errno.EOPNOTSUPP, "nft: " + (done.stderr.strip().splitlines() or ["no reason given"])[0])
    return done.stdout


def _suffix(block: str) -> str:
    return f"{int(IPv4Network(block).network_address) >> 16:x}"


def _table(block: str) -> str:
    return "lambent_" + _suffix(block)


def _group(block: str) -> int:
    return _GROUPS | int(IPv4Network(block).network_address) >> 16


def _rehearse() -> str:
    """In a scratch network namespace: everything that ``Network`` does, once."""
    kernel.unshare(kernel.CLONE_NEWNET)
    network = Network("full", BLOCKS[:1])
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        network.open()
        network.attach(fd, 0)
    except SandboxFault as fault:
        raise OSError(fault.message) from fault
    return ""


def probe() -> EgressAbility:
    """Try it, in a forked child and a network namespace that ends with it."""
    missing = []
    if shutil.which("nft", path=_SEARCH) is None:
        missing.append("nft is not installed (Debian: apt-get install nftables)")
    if os.geteuid() != 0:
        missing.append("virtual interfaces and the firewall need root (run the server as root, or set egress to none)")
    elif not os.access(_FORWARD, os.W_OK):
        missing.append(f"{_FORWARD} cannot be written, so packets of sandboxes cannot be forwarded")
    if not missing:
        tried = attempt(_rehearse)
        if not tried.ok:
            missing.append(f"the kernel refused a trial network: {tried.detail}")
    return EgressAbility(not missing, tuple(missing))


def resolvers(texts: Iterable[str], own: Iterable[str] = ()) -> tuple[str, ...]:
    """The name servers of the first of some ``resolv.conf`` texts that has any which a sandbox can reach: IPv4, and not the host itself."""
    local = set(own)
    for document in texts:
        found = []
        for line in document.splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                try:
                    address = IPv4Address(words[1])
                except ValueError:
                    continue
                if not (address.is_loopback or address.is_link_local or str(address) in local):
                    found.append(str(address))
        if found:
            return tuple(found)
    return ()


class Network:
    """Egress for the sandboxes of one instance. ``open`` first, ``close`` last; both once. All calls from one thread."""

    def __init__(self, mode: str, blocks: tuple[str, ...] = BLOCKS) -> None:
        """``mode``: ``none``, ``full``, or ``auto``: ``full`` where that is possible. ``blocks``: private /16 networks to choose from."""
        self._wanted = mode
        self._blocks = blocks
        self.mode = "none"
        self.reason = "egress is set to none"
        self.block = ""
        self._claim: socket.socket | None = None
        self._netlink: netlink.Netlink | None = None
        self._home = -1
        self._mtu = 1500
        self._resolvers: tuple[str, ...] = ()

    def open(self) -> None:
        """Claim a block and raise the firewall. Raises ``SandboxFault`` where ``full`` was asked for and cannot be had."""
        if self._wanted == "none":
            return
        try:
            if os.geteuid() != 0:
                raise OSError(errno.EPERM, "virtual interfaces and the firewall need root")
            self._netlink = netlink.Netlink()
            self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._raise_firewall()
        except OSError as error:
            self.close()
            self.reason = f"no egress: {error.strerror or error}"
            if self._wanted == "full":
                raise SandboxFault(f"egress is set to full, but {self.reason}") from error
            return
        self.mode = "full"
        self.reason = f"routed from {self.block} with nftables"

    @property
    def resolv_conf(self) -> str:
        """What ``/etc/resolv.conf`` in a sandbox should say; empty where no name server can be reached."""
        return "".join(f"nameserver {address}\n" for address in self._resolvers)

    def attach(self, netns_fd: int, index: int) -> str:
        """Give the network namespace ``netns_fd`` its way out, as sandbox ``index`` (0 up to ``CAPACITY``).

        Returns its address, or "" without egress. Raises ``OSError``.
        """
        if self._netlink is None:
            return ""
        address = self._address(index)
        name = self._name(index)
        mac = b"\x02lb" + address[1:]  # locally administered; only the two ends ever see it
        pair = netlink.veth(name, "eth0", netns_fd, mac, self._mtu, _group(self.block))
        self._netlink.request((netlink.NEWLINK, netlink.CREATE, pair), *netlink.raise_link(name))
        try:
            host_end = socket.if_nametoindex(name)
            self._netlink.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(address, 32, PROTOCOL, host_end)))
            self._configure_inside(netns_fd, address)
        except OSError:
            self.detach(index)
            raise
        return socket.inet_ntoa(address)

    def detach(self, index: int) -> None:
        """Take the way out away. Idempotent, and 16 ms of waiting for the kernel.

        The end of the network namespace does the same in the background. So whoever kills sandboxes need not call this, but should count
        indexes upwards (modulo ``CAPACITY``), since a name is free again only when the kernel got to it.
        """
        if self._netlink is None:
            return
        with contextlib.suppress(OSError):  # gone with its namespace
            self._netlink.request((netlink.DELLINK, 0, netlink.link(0, 0, netlink.text(netlink.IFLA_IFNAME, self._name(index)))))

    def close(self) -> None:
        """Remove every interface, route and table of this instance."""
        if self._claim is not None and self._netlink is not None:
            self._remove(self.block)
            self._restore_forwarding()
        for closable in (self._netlink, self._claim):
            if closable is not None:
                closable.close()
        self._netlink = self._claim = None
        if self._home >= 0:
            os.close(self._home)
            self._home = -1
        self.mode, self.block = "none", ""

    def _address(self, index: int) -> bytes:
        if not 0 <= index < CAPACITY:
            raise OSError(errno.ERANGE, f"sandbox number {index} is beyond {CAPACITY}")
        return (IPv4Network(self.block).network_address + _FIRST_HOST + index).packed

    def _name(self, index: int) -> str:
        return f"lmb{_suffix(self.block)}-{index:x}"

    def _configure_inside(self, netns_fd: int, address: bytes) -> None:
        kernel.setns(netns_fd, kernel.CLONE_NEWNET)
        try:
            index = socket.if_nametoindex("eth0")
            with netlink.Netlink() as inside:
                inside.request(
                    *netlink.raise_link("eth0"),
                    (netlink.NEWADDR, netlink.CREATE, netlink.address(index, address)),
                    (netlink.NEWROUTE, netlink.CREATE, netlink.route(bytes(4), 0, PROTOCOL, index)),
                )
        finally:
            kernel.setns(self._home, kernel.CLONE_NEWNET)

    def _raise_firewall(self) -> None:
        link = self._netlink
        assert link is not None
        routes = list(link.routes())
        self._sweep_and_claim(routes)
        self._mtu = min((_mtu(index) for _, prefix, _, index in routes if prefix == 0 and index), default=1500)
        own = [socket.inet_ntoa(packed) for packed in link.addresses()]
        self._resolvers = resolvers(map(_read, ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")), own)
        network = IPv4Network(self.block)
        link.request((netlink.NEWROUTE, netlink.CREATE, netlink.route(network.network_address.packed, network.prefixlen, PROTOCOL)))
        _nft("-f", "-", script=ruleset(self.block))
        if _read(_FORWARD).strip() != "1":
            _nft("-f", "-", script=_SHARED)
            _write(_FORWARD, "1")

    def _sweep_and_claim(self, routes: list[tuple[bytes, int, int, int]]) -> None:
        """Take the first free block that the host has no other use for, and clean every block that has no living owner."""
        tables = {line.rpartition(" ")[2] for line in _nft("list", "tables", "inet").splitlines()}
        foreign = [
            IPv4Network((packed, prefix)) for packed, prefix, protocol, _ in routes if prefix and protocol != PROTOCOL
        ]  # ours are covered by the claims
        for block in self._blocks:
            claim = _claim(block)
            if claim is None:
                continue
            if _table(block) in tables or any(protocol == PROTOCOL and _within(packed, block) for packed, _, protocol, _ in routes):
                self._remove(block)
            if self._claim is None and not any(IPv4Network(block).overlaps(other) for other in foreign):
                self._claim, self.block = claim, block
            else:
                claim.close()
        if self._claim is None:
            raise OSError(errno.EADDRINUSE, f"every block of {', '.join(self._blocks)} is in use on this host")

    def _remove(self, block: str) -> None:
        assert self._netlink is not None
        network = IPv4Network(block)
        with contextlib.suppress(OSError):  # no interface is left
            self._netlink.request((netlink.DELLINK, 0, netlink.link(0, 0, netlink.number(netlink.IFLA_GROUP, _group(block)))))
        with contextlib.suppress(OSError):
            self._netlink.request((netlink.DELROUTE, 0, netlink.route(network.network_address.packed, network.prefixlen, PROTOCOL)))
        with contextlib.suppress(OSError):
            _nft("delete", "table", "inet", _table(block))

    def _restore_forwarding(self) -> None:
        with contextlib.suppress(OSError):
            tables = {line.rpartition(" ")[2] for line in _nft("list", "tables", "inet").splitlines()}
            if "lambent" in tables and not any(name.startswith("lambent_") for name in tables):
                _write(_FORWARD, "0")
                _nft("delete", "table", "inet", "lambent")


def _claim(block: str) -> socket.socket | None:
    """The abstract socket that says a block has a living owner, or ``None`` where it has another."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind("\0lambent/egress/" + block)
    except OSError:
        claim.close()
        return None
    return claim


def _within(packed: bytes, block: str) -> bool:
    return IPv4Address(packed) in IPv4Network(block)


def _mtu(index: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        request = struct.pack("16s16x", socket.if_indextoname(index).encode())
        answer = fcntl.ioctl(asker, 0x8921, request)  # SIOCGIFMTU
    return max(1280, min(65535, int(struct.unpack_from("=i", answer, 16)[0])))


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
