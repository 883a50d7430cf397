"""What the launcher remembers of bytecode, and what an environment makes of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator

import pytest

from lambent.runtime_api.python_imports import HandlerCode
from lambent.sandbox import bytecode
from lambent.sandbox.bytecode import Bytecodes, Pipe


class Loop:
    """Runs no readers until it is told to."""

    def __init__(self) -> None:
        self.readers: dict[Pipe, Callable[[], None]] = {}

    def watch(self, channel: Pipe, reader: Callable[[], None]) -> None:
        self.readers[channel] = reader

    def unwatch(self, channel: Pipe) -> None:
        del self.readers[channel]

    def turn(self) -> None:
        for reader in list(self.readers.values()):
            reader()


class House:
    def __init__(self) -> None:
        self.loop = Loop()
        self.codes = Bytecodes(self.loop)

    def tell(self, key: str, said: bytes) -> None:
        tell = self.codes.learn(key)
        while said:
            said = said[os.write(tell, said[:60_000]) :]
            self.loop.turn()
        os.close(tell)
        self.loop.turn()

    def known(self, key: str) -> bytes | None:
        fd = self.codes.lend(key)
        return os.pread(fd, 1 << 22, 0) if fd >= 0 else None

    def close(self) -> None:
        for fd in self.codes._known.values():
            os.close(fd)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def test_what_was_said_is_known_once_it_is_all_said(house: House) -> None:
    tell = house.codes.learn("a")
    os.write(tell, b"one ")
    house.loop.turn()
    assert house.known("a") is None
    os.write(tell, b"two")
    os.close(tell)
    house.loop.turn()
    assert house.known("a") == b"one two"
    assert house.known("b") is None
    assert house.loop.readers == {}


def test_one_at_a_time_is_asked_and_after_silence_the_next(house: House) -> None:
    tell = house.codes.learn("a")
    assert house.codes.learn("a") == -1
    other = house.codes.learn("b")
    assert other >= 0
    os.close(other)
    os.close(tell)
    house.loop.turn()
    assert house.known("a") is None
    house.tell("a", b"said")
    assert house.known("a") == b"said"


def test_what_is_lent_cannot_be_changed(house: House) -> None:
    house.tell("a", b"said")
    fd = house.codes.lend("a")
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)


def test_too_much_is_not_remembered(house: House) -> None:
    house.tell("a", bytes(bytecode.MAX_BYTES))
    house.tell("b", bytes(bytecode.MAX_BYTES + 1))
    assert house.known("a") is not None
    assert house.known("b") is None


def test_the_oldest_is_forgotten_first(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "MAX_KNOWN_BYTES", 100)
    for key in "abc":
        house.tell(key, key.encode() * 40)
    assert house.known("a") is None
    assert house.known("b") == b"b" * 40
    assert house.known("c") == b"c" * 40


# -- in an environment ------------------------------------------------------------------------------------------------------------

SOURCE = (1_700_000_000_000_000_000, 42)


def told(text: str = "answer = 42") -> bytes:
    """What an environment says after it has compiled ``text``."""
    reading, writing = os.pipe()
    code = HandlerCode()
    code.attach(-1, writing)
    code.compile(lambda: compile(text, "app.py", "exec"), SOURCE)
    code.forget()
    with open(reading, "rb") as file:
        return file.read()


def loads(said: bytes, source: tuple[int, int] = SOURCE) -> object:
    file = os.memfd_create("test")
    os.write(file, said)
    code = HandlerCode()
    code.attach(file, -1)
    try:
        found = code.known(source)
    finally:
        code.forget()
    if found is None:
        return None
    space: dict[str, object] = {}
    exec(found, space)
    return space["answer"]


def test_what_is_told_can_be_loaded() -> None:
    assert loads(told()) == 42


def test_only_for_the_same_source() -> None:
    assert loads(told(), (SOURCE[0] + 1, SOURCE[1])) is None
    assert loads(told(), (SOURCE[0], SOURCE[1] + 1)) is None


def test_anything_that_is_damaged_is_not_loaded() -> None:
    said = told()
    for size in range(len(said)):
        assert loads(said[:size]) is None
    assert loads(b"\0" + said[1:]) is None
    assert loads(said[:24] + b"\xff" * (len(said) - 24)) is None
    assert loads(said[:20] + (5).to_bytes(4, "little") + b"i\1\0\0\0") is None  # a number is no code


def test_a_source_that_warns_is_not_told_and_warns() -> None:
    with pytest.warns(SyntaxWarning):
        assert told("1 is 1") == b""


def test_nobody_listens_to_a_launcher_that_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = HandlerCode()
    code.attach(-1, writing)
    with warnings.catch_warnings():
        assert code.compile(lambda: compile("answer = 42", "app.py", "exec"), SOURCE) is not None
    code.forget()
    code.forget()
