"""The catalogue of runtimes: which names exist, and what on this machine runs each.

Runtimes come in families, and each family has a *finder*: a module with a function ``find(runtime, configured, environ)`` that looks at the
machine and gives a ``RuntimePlan``, or one sentence that tells what is missing and how to get it. Python's is in here, as its answer is
an interpreter to fork and not only a program to execute.

Nothing is searched until somebody asks. The first ``find`` of a Python lists the few programs that bear its name, asks them all
at once what they are (``interpreter.py``, about 20 ms) and keeps the best: one from the settings before any other, then an ordinary build
before a free-threaded one, a release before a preview, the newest patch, the system's own. Answers are kept for the life of the
catalogue, except that a runtime which was missing is looked for again, since its user may have just installed it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from lambent.errors import invalid_parameter
from lambent.runtimes import identifiers, packages, search
from lambent.runtimes.interpreter import Interpreter, ask
from lambent.runtimes.plan import RuntimePlan
from lambent.runtimes.runtime_objects import Runtime
from lambent.runtimes.versions import runtime_of

Finder = Callable[[str, Sequence[str], Mapping[str, str]], "RuntimePlan | str"]

FINDERS: Mapping[str, str] = {  # family -> module; imported when the first runtime of the family is asked for
    "nodejs": "lambent.runtimes.nodejs",
    "java": "lambent.runtimes.java",
    "ruby": "lambent.runtimes.ruby",
    "dotnet": "lambent.runtimes.dotnet",
    "provided": "lambent.runtimes.provided",
}


class Catalogue:
    """Finds what runs a runtime. Thread-safe; ``plan``, ``find``, ``installed`` and ``missing`` block for their first answer."""

    def __init__(
        self,
        configured: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        package_folders: Sequence[str] = (),
    ) -> None:
        """``configured`` are the entries of ``[sandbox] interpreters``: binaries, folders of them, prefixes, or folders of prefixes.

        ``package_folders`` are the entries of ``[sandbox] packages``: folders named after a runtime, or folders of such.
        """
        self._configured = tuple(configured)
        self._package_folders = tuple(package_folders)
        self._environ = dict(os.environ if environ is None else environ)
        self._found: dict[str, Interpreter] = {}
        self._plans: dict[str, RuntimePlan] = {}
        self._asked: dict[tuple[str, int], Interpreter | str] = {}  # (program, mtime ns)
        self._lock = threading.Lock()

    def check(self, runtime: str) -> None:
        """Raise ``ClientFault`` unless Lambent runs functions of this name; does not look at the machine."""
        refusal = identifiers.refusal(runtime)
        if refusal is not None:
            raise refusal

    def plan(self, runtime: str) -> RuntimePlan:
        """How ``runtime`` is run here. Raises ``ClientFault`` (400) that names what is missing and what to do."""
        plan = self._plans.get(runtime)
        if plan is None:
            self.check(runtime)
            answer = self._look_for_plan(runtime)
            if isinstance(answer, str):
                raise invalid_parameter(answer)
            plan = self._plans[runtime] = answer
        return plan

    def runtime(self, name: str) -> Runtime | None:
        """The runtime of that name as an object, if it was found already; does not look at the machine."""
        plan = self._plans.get(name)
        return None if plan is None else runtime_of(plan)

    def find(self, runtime: str) -> Interpreter:
        """The CPython for a Python runtime. Raises ``ClientFault`` (400) that names what is missing and what to do."""
        self.check(runtime)
        if identifiers.family(runtime) != "python":
            raise invalid_parameter(f"{runtime} is no Python runtime")
        with self._lock:
            found = self._found.get(runtime) or self._look(runtime)
        if found is None:
            raise invalid_parameter(_no_python(runtime))
        return found

    def known(self, runtime: str) -> Interpreter | None:
        """What ``find`` has already found, without searching."""
        return self._found.get(runtime)

    def interpreters(self) -> list[Interpreter]:
        """The chosen interpreter of every Python runtime that this machine has, oldest first."""
        names = identifiers.FAMILIES["python"]
        with self._lock:
            self._ask(path for runtime in names for path in self._programs(runtime))
            found = [self._found.get(runtime) or self._look(runtime) for runtime in names]
        return [interpreter for interpreter in found if interpreter is not None]

    def installed(self) -> list[RuntimePlan]:
        """How each supported runtime that this machine has is run, in the order of ``identifiers.SUPPORTED``."""
        return [answer for answer in self._survey().values() if isinstance(answer, RuntimePlan)]

    def missing(self) -> dict[str, str]:
        """The supported runtimes that this machine has not, and what to do about each."""
        return {runtime: answer for runtime, answer in self._survey().items() if isinstance(answer, str)}

    def searched(self) -> list[str]:
        """Where Python interpreters are looked for; ``*`` stands for any folder."""
        return search.searched(self._configured, self._environ)

    def rejected(self) -> dict[str, str]:
        """Programs that bear the right name but were not usable, and why; of what has been asked so far."""
        with self._lock:
            return {path: answer for (path, _), answer in self._asked.items() if isinstance(answer, str)}

    # -- every family ----------------------------------------------------------------------------------------------------------

    def _survey(self) -> dict[str, RuntimePlan | str]:
        """Everything at once: most of the time goes by in programs that are asked what they are."""
        self.interpreters()
        with ThreadPoolExecutor(max_workers=8) as threads:
            answers = list(threads.map(self._look_for_plan, identifiers.SUPPORTED))
        return dict(zip(identifiers.SUPPORTED, answers, strict=True))

    def _look_for_plan(self, runtime: str) -> RuntimePlan | str:
        plan = self._plans.get(runtime)
        if plan is not None:
            return plan
        family = identifiers.family(runtime)
        assert family is not None, runtime
        if family == "python":
            return self._python(runtime)
        finder: Finder = import_module(FINDERS[family]).find
        return finder(runtime, (*self._configured, *self._package_folders), self._environ)

    def _python(self, runtime: str) -> RuntimePlan | str:
        with self._lock:
            found = self._found.get(runtime) or self._look(runtime)
        if found is None:
            return _no_python(runtime)
        return RuntimePlan(
            runtime=runtime,
            version=found.version_text,
            transport="frames",
            prefix=found.prefix,
            runtime_dir=(*packages.runtime_packages(found, self._package_folders), (packages.CLIENT_NAME, str(packages.CLIENT))),
            wrapped=(found.inner_executable, f"/var/runtime/{packages.CLIENT_NAME}", "--channel-fd", "3"),
        )

    # -- Python ----------------------------------------------------------------------------------------------------------------

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


def _no_python(runtime: str) -> str:
    version = runtime.removeprefix("python")
    return (
        f"Lambent found no CPython {version} on this machine for runtime {runtime}: install {runtime} "
        f"(or pyenv install {version}), or name it under [sandbox] interpreters; `lambent doctor` lists what was searched."
    )
