"""How the ends of extensions reach the owner of a sandbox, also those that came before the owner listened."""

from __future__ import annotations

from collections.abc import Callable

from lambent.sandbox.driver import SandboxExit

Hear = Callable[[str, SandboxExit], None]


class ExtensionExits:
    """A base of sandboxes: ``on_extension_exit`` of the driver contract."""

    __slots__ = ("_early", "_hear")

    def __init__(self) -> None:
        self._hear: Hear | None = None
        self._early: list[tuple[str, SandboxExit]] = []

    @property
    def on_extension_exit(self) -> Hear | None:
        return self._hear

    @on_extension_exit.setter
    def on_extension_exit(self, hear: Hear | None) -> None:
        self._hear = hear
        while hear is not None and self._early:
            hear(*self._early.pop(0))

    def tell_extension_exit(self, name: str, how: SandboxExit) -> None:
        if self._hear is not None:
            self._hear(name, how)
        else:
            self._early.append((name, how))
