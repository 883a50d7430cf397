"""Immortal objects: in a process of its own, since it cannot be undone, and with every interpreter that functions may have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lambent.errors import ClientFault
from lambent.runtimes.catalogue import Catalogue
from lambent.sandbox import immortals

_KNOW = (3, 12)  # PEP 683
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import asyncio, collections, decimal, gc, json, logging, re, threading, weakref
import immortals

class Kept:
    def method(self):
        return {"kept": [len(name) for name in NAMES]}

NAMES = ["one", "three"]
kept = Kept()
found = immortals.make_immortal()
counts = {
    "function": json.loads, "code": json.loads.__code__, "module": json, "class": Kept, "instance": kept, "dict": json.__dict__,
    "nested": json.JSONDecoder.decode.__code__.co_consts, "constant": Kept.method.__code__.co_consts, "list": NAMES,
}
before = {name: sys.getrefcount(each) for name, each in counts.items()}
more = [list(counts.values()) for _ in range(1000)]
after = {name: sys.getrefcount(each) for name, each in counts.items()}
del more

# What is made from here on lives and dies as ever.
class Made:
    pass

made = Made()
gone = []
weakref.finalize(made, gone.append, "counted")
circle = Made()
circle.itself = circle
weakref.finalize(circle, gone.append, "collected")
del made, circle
gc.collect()
gc.freeze()
gc.collect()

# And what was made before still works, changes, and may be thrown away.
NAMES.append("five!")
kept.more = kept.method()
text = "immortal-" + str(len(NAMES))
interned = sys.intern(text) is sys.intern("".join(["immortal", "-3"]))
for name in [name for name in sys.modules if name.partition(".")[0] in ("json", "decimal", "_decimal")]:
    del sys.modules[name]
del json, decimal, counts
import json, decimal
thread = threading.Thread(target=gone.append, args=("thread",))
thread.start()
thread.join()
answer = {
    "found": found, "before": before, "after": after, "gone": sorted(gone), "kept": kept.more, "interned": interned,
    "task": asyncio.run(asyncio.sleep(0, "slept")), "match": re.sub("(a)b", r"\\1", "abab"), "third": str(decimal.Decimal(1) / 3)[:4],
    "counter": collections.Counter("abba"), "logged": logging.LogRecord("a", 1, "b", 2, "%s", ("c",), None).getMessage(),
}
print(json.dumps(answer))
"""


@pytest.mark.parametrize("runtime", [f"python3.{minor}" for minor in range(8, 15)])
def test_all_that_lives_is_immortal_where_the_interpreter_knows_that(runtime: str, tmp_path: Path) -> None:
    try:
        interpreter = Catalogue().find(runtime)
    except ClientFault as fault:
        pytest.skip(fault.message)
    shutil.copy(immortals.__file__, tmp_path)
    done = subprocess.run([interpreter.executable, "-c", _PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, check=True, text=True)
    answer = json.loads(done.stdout)
    if tuple(map(int, runtime[6:].split("."))) >= _KNOW:
        assert answer["found"] > 10_000
        assert answer["after"] == answer["before"]
    else:
        assert answer["found"] == 0
        assert all(count >= answer["before"][name] + 1_000 for name, count in answer["after"].items())
    assert answer["gone"] == ["collected", "counted", "thread"]
    assert answer["kept"] == {"kept": [3, 5, 5]}
    assert answer["interned"] is True
    assert (answer["task"], answer["match"], answer["third"]) == ("slept", "aa", "0.33")
    assert (answer["counter"], answer["logged"]) == ({"a": 2, "b": 2}, "c")


def test_this_very_interpreter_says_how_many() -> None:
    program = "from lambent.sandbox import immortals; print(immortals.make_immortal())"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    assert (int(done.stdout) > 0) == (sys.version_info >= _KNOW)
