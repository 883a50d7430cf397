"""Route netlink: links, addresses and routes, as messages over a standard-library socket.

Enough of ``rtnetlink(7)`` for ``network.py``, and nothing more. A message is a header (length, type, flags, sequence, port), a fixed
struct that depends on the type, and attributes (length, type, payload, padded to four bytes), which nest. Several messages go out in one
write; the kernel handles them in order and answers each with an acknowledgement, so a whole sandbox costs a few system calls.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from collections.abc import Iterator

NEWLINK, DELLINK, SETLINK, NEWADDR, GETADDR, NEWROUTE, DELROUTE, GETROUTE = 16, 17, 19, 20, 22, 24, 25, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
CREATE = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 1, 3, 4, 18, 26, 27, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER, _INET6_ADDR_GEN_MODE = 1, 2, 1, 8
_NESTED = 0x8000
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_TABLE = 1, 4, 15
IFF_UP, IFF_NOARP = 0x1, 0x80
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
ROUTE_UNICAST, ROUTE_UNREACHABLE = 1, 7
MAIN_TABLE = 254

_buffer = bytearray(1 << 18)  # for answers, which are read one at a time; memory of this size made anew is pages made anew


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data``, by type without its flags."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def link(index: int = 0, flags: int = 0, *parts: bytes) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags) + b"".join(parts)


def veth(name: str, peer: str, peer_netns: int, mac: bytes, mtu: int, group: int) -> bytes:
    """The body of a NEWLINK that makes both ends, down, without ARP, and with one MAC; ``network.py`` says why."""
    common = attribute(IFLA_ADDRESS, mac) + number(IFLA_MTU, mtu)
    other = link(0, IFF_NOARP, text(IFLA_IFNAME, peer), number(IFLA_NET_NS_FD, peer_netns), common)
    info = attribute(_INFO_KIND, b"veth") + attribute(_INFO_DATA | _NESTED, attribute(_VETH_PEER | _NESTED, other))
    return link(0, IFF_NOARP, text(IFLA_IFNAME, name), number(IFLA_GROUP, group), common, attribute(IFLA_LINKINFO | _NESTED, info))


def raise_link(name: str) -> list[tuple[int, int, bytes]]:
    """Messages that put the interface up. The first forbids IPv6 addresses, one of which the kernel would make the moment it is up."""
    named = text(IFLA_IFNAME, name)
    silent = attribute(IFLA_AF_SPEC | _NESTED, attribute(socket.AF_INET6 | _NESTED, attribute(_INET6_ADDR_GEN_MODE, b"\1")))
    up = (SETLINK, 0, link(0, IFF_UP, named))
    return [(SETLINK, 0, link(0, 0, named, silent)), up] if _has_ipv6() else [up]


@functools.cache
def _has_ipv6() -> bool:
    """Whether the kernel has it. Asked once: a look there takes the longer the more network namespaces there are."""
    return os.path.exists("/proc/sys/net/ipv6")


def address(index: int, packed: bytes, prefix: int = 32) -> bytes:
    parts = attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    return _ADDRESS.pack(socket.AF_INET, prefix, 0, SCOPE_UNIVERSE, index) + parts


def route(destination: bytes, prefix: int, protocol: int, index: int = 0) -> bytes:
    """To ``destination`` (4 bytes) through the interface ``index``, directly; without one, a route that says "unreachable"."""
    kind, scope = (ROUTE_UNICAST, SCOPE_LINK) if index else (ROUTE_UNREACHABLE, SCOPE_UNIVERSE)
    body = _ROUTE.pack(socket.AF_INET, prefix, 0, 0, MAIN_TABLE, protocol, scope, kind, 0)
    if prefix:
        body += attribute(RTA_DST, destination)
    return body + (number(RTA_OIF, index) if index else b"")


class Netlink:
    """A socket of the network namespace that the calling thread is in. Blocking; the kernel answers at once. Close it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, *messages: tuple[int, int, bytes]) -> None:
        """Send (type, flags, body) messages in one write. Raises the first ``OSError`` that the kernel answers."""
        out = []
        for kind, flags, body in messages:
            self._sequence += 1
            out.append(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0) + body)
            out.append(bytes(-len(body) % 4))
        self._socket.send(b"".join(out))
        failure = 0
        waiting = len(messages)
        while waiting:
            for kind, body in self._receive():
                if kind == _ERROR:
                    waiting -= 1
                    failure = failure or -struct.unpack_from("=i", body)[0]
        if failure:
            raise OSError(failure, os.strerror(failure))

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of everything the kernel lists for a GET message."""
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, self._sequence, 0) + body)
        while True:
            for answer, content in self._receive():
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    failure = -struct.unpack_from("=i", content)[0]
                    raise OSError(failure, os.strerror(failure))
                yield content

    def routes(self) -> Iterator[tuple[bytes, int, int, int]]:
        """(destination, prefix length, protocol, interface index) of every IPv4 route in every table."""
        for body in self.dump(GETROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            prefix, protocol = body[1], body[5]
            found = attributes(body[_ROUTE.size :])
            index = struct.unpack("=i", found[RTA_OIF])[0] if RTA_OIF in found else 0
            yield found.get(RTA_DST, bytes(4)), prefix, protocol, index

    def addresses(self) -> Iterator[bytes]:
        """Every IPv4 address of this namespace."""
        for body in self.dump(GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            found = attributes(body[_ADDRESS.size :])
            local = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
            if local is not None:
                yield local

    def _receive(self) -> list[tuple[int, bytes]]:
        size = self._socket.recv_into(_buffer)
        messages = []
        offset = 0
        while offset + _HEADER.size <= size:
            length, kind, _, sequence, _ = _HEADER.unpack_from(_buffer, offset)
            if length < _HEADER.size:
                break
            if sequence == self._sequence or kind == _ERROR:
                messages.append((kind, bytes(_buffer[offset + _HEADER.size : offset + length])))
            offset += (length + 3) & ~3
        return messages
