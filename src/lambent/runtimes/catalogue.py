"""The catalogue of runtimes: which names exist, and which interpreter on this machine runs each.

Nothing is searched until somebody asks. The first ``find`` of a runtime lists the few programs that bear its name, asks them all
at once what they are (``interpreter.py``, about 20 ms) and keeps the best: one from the settings before any other, then an ordinary build
before a free-threaded one, a release before a preview, the newest patch, the system's own. Answers are kept for the life of the
catalogue, except that a runtime which was missing is looked for again, since its user may have just installed it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence

from lambent.errors import invalid_parameter
from lambent.runtimes import identifiers, search
from lambent.runtimes.interpreter import Interpreter, ask


class Catalogue:
    """Finds interpreters. Thread-safe; ``find`` and ``installed`` block for their first answer."""

    def __init__(self, configured: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> None:
        """``configured`` are the entries of ``[sandbox] interpreters``: binaries, folders of them, prefixes, or folders of prefixes."""
        self._configured = tuple(configured)
        self._environ = dict(os.environ if environ is None else environ)
        self._found: dict[str, Interpreter] = {}
        self._asked: dict[tuple[str, int], Interpreter | str] = {}  # (program, mtime ns)
        self._lock = threading.Lock()

    def check(self, runtime: str) -> None:
        """Raise ``ClientFault`` unless Lambent runs functions of this name; does not look at the machine."""
        refusal = identifiers.refusal(runtime)
        if refusal is not None:
            raise refusal

    def find(self, runtime: str) -> Interpreter:
        """The interpreter for ``runtime``. Raises ``ClientFault`` (400) that names what is missing and what to do."""
        self.check(runtime)
        with self._lock:
            found = self._found.get(runtime) or self._look(runtime)
        if found is None:
            version = runtime.removeprefix("python")
            raise invalid_parameter(
                f"Lambent found no CPython {version} on this machine for runtime {runtime}: install {runtime} "
                f"(or pyenv install {version}), or name it under [sandbox] interpreters; `lambent doctor` lists what was searched."
            )
        return found

    def known(self, runtime: str) -> Interpreter | None:
        """What ``find`` has already found, without searching."""
        return self._found.get(runtime)

    def installed(self) -> list[Interpreter]:
        """The chosen interpreter of every supported runtime that this machine has, oldest first."""
        with self._lock:
            self._ask(path for runtime in identifiers.SUPPORTED for path in self._programs(runtime))
            found = [self._found.get(runtime) or self._look(runtime) for runtime in identifiers.SUPPORTED]
        return [interpreter for interpreter in found if interpreter is not None]

    def searched(self) -> list[str]:
        """Where interpreters are looked for; ``*`` stands for any folder."""
        return search.searched(self._configured, self._environ)

    def rejected(self) -> dict[str, str]:
        """Programs that bear the right name but were not usable, and why; of what has been asked so far."""
        with self._lock:
            return {path: answer for (path, _), answer in self._asked.items() if isinstance(answer, str)}

    def _look(self, runtime: str) -> Interpreter | None:
        groups = search.candidates(runtime, self._configured, self._environ)
        answers = self._ask(path for group in groups for path in group)
        for group in groups:
            fitting = [answers[path] for path in group]
            usable = [each for each in fitting if isinstance(each, Interpreter) and each.runtime == runtime]
            if usable:
                self._found[runtime] = max(usable, key=Interpreter.preference)
                return self._found[runtime]
        return None

    def _programs(self, runtime: str) -> list[str]:
        return [path for group in search.candidates(runtime, self._configured, self._environ) for path in group]

    def _ask(self, paths: Iterable[str]) -> dict[str, Interpreter | str]:
        keys = {path: (path, os.stat(path).st_mtime_ns) for path in dict.fromkeys(paths)}
        unasked = [path for path, key in keys.items() if key not in self._asked]
        for path, answer in ask(unasked).items():
            self._asked[keys[path]] = answer
        return {path: self._asked[key] for path, key in keys.items()}
