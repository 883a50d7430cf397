"""Packing a zygote's memory: in a process of its own, since it cannot be undone."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import _ctypes, _decimal, _hashlib, _json, _socket, _ssl, collections, json, zlib
from lambent.sandbox import packing

def libraries():
    count = collections.Counter()
    for line in open("/proc/self/maps"):
        if line.rstrip().endswith(".so") or ".so." in line:
            count[line.split()[-1]] += 1
    return count

before = libraries()
packing.pack()
after = libraries()
import _asyncio, _bz2, _lzma  # the loader still loads
print(json.dumps([before, after, str(_decimal.Decimal(1) / 3), _hashlib.new("sha256", b"x").hexdigest()[:8]]))
"""


def test_a_packed_process_has_fewer_mappings_and_works() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, check=True, text=True)
    before, after, third, digest = json.loads(done.stdout)
    assert sum(after.values()) < 0.6 * sum(before.values())
    assert after.keys() == before.keys()
    assert (third, digest) == ("0.3333333333333333333333333333", "2d711642")
