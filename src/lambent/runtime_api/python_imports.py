"""What a Python function's imports find: the search path, what it brings in place of modules that are loaded already, and its handler.

The zygote has imported much before the function is known (``PRELOADED`` in ``python_client.py``). A function or layer that brings a module
of one of these names must get its own, so the preloaded one is forgotten (``settle_folder``). The AWS SDK and what it stands on go as one,
since half of one version and half of another would not work.

**The AWS SDK.** A function may also bring one outside the folders that are looked at, and say so itself: ``sys.path.insert(0, "vendor")``.
So the zygote puts the SDK's modules aside once it has them (``put_sdk_aside``), and ``AsideFinder`` gives them back one by one as they are
imported, if at the first of them the search path leads to no other. Then a function sees only what it asked for, as on AWS.

**The handler.** The import system looks for a module at every place where one could be, and each step of that search writes to a page that
the child shares with its zygote, at some microseconds a page. For the handler's module the answer is known as soon as the function's folder
is listed: if there is one ``app.py``, nothing else of that name and no cached bytecode, that file is it. ``HandlerFinder`` says so when the
import system asks, in the place of the finder that would have searched; the module, its spec and its errors are the usual ones.

Seen in the sandbox as ``/var/runtime/lambent_runtime_imports.py``. Standard library only, CPython 3.8 to 3.14.
"""

from __future__ import annotations

import _imp
import marshal
import os
import site
import struct
import sys
import warnings
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType

STDLIB = os.path.dirname(os.__file__)
_LAYER_FOLDERS = ["/opt/python/lib/python{}.{}/site-packages".format(*sys.version_info[:2]), "/opt/python"]
_CODE_HEAD = struct.Struct("<4sqqI")
_KIND, _REGULAR = 0o170000, 0o100000  # as ``stat`` has them
_library: list[str] = []  # the part of the search path that is the standard library

# Top-level module names that are loaded before the function -> does it go alone where the function brings its own (the SDK goes as one).
preloaded: dict[str, bool] = {"awslambda": True}


def note_preloaded(before: set[str]) -> None:
    """All modules that were not among ``before`` are there for functions that do not bring their own."""
    for name in set(sys.modules) - before:
        top = name.partition(".")[0]
        if top not in before:
            file = getattr(sys.modules.get(top), "__file__", None) or STDLIB
            preloaded[top] = file.startswith(STDLIB)


def put_sdk_aside() -> None:
    """The modules of the SDK leave ``sys.modules``, and wait for whoever imports them."""
    names = [name for name, module in sys.modules.items() if not preloaded.get(name.partition(".")[0], True) and module.__spec__]
    aside.modules.update({name: sys.modules.pop(name) for name in names})
    if PathFinder in sys.meta_path:
        sys.meta_path.insert(sys.meta_path.index(PathFinder), aside)


def variable(name: str, default: str) -> str:
    """What ``os.environ.get`` gives, without the five functions that it calls."""
    value = os.environ._data.get(name.encode())  # type: ignore[attr-defined]
    return default if value is None else value.decode("utf-8", "surrogateescape")


def search_path(inherited: list[str]) -> list[str]:
    """``sys.path`` as on AWS: the function, layers, the runtime, the standard library; the host's own packages are not on it.

    A ``PYTHONPATH`` of the user's takes the place of the layers' folders, as on AWS. ``inherited`` is looked at once, before any fork.
    """
    runtime_dir = variable("LAMBDA_RUNTIME_DIR", "/var/runtime")
    task_root = variable("LAMBDA_TASK_ROOT", "/var/task")
    python_path = variable("PYTHONPATH", runtime_dir)
    layers, extra = _LAYER_FOLDERS, []
    if python_path != runtime_dir:
        layers, extra = [], [entry for entry in python_path.split(os.pathsep) if entry and entry != runtime_dir]
    if not _library:
        archive = "python{}{}.zip".format(*sys.version_info[:2])
        _library.extend(
            entry
            for entry in inherited
            if os.path.basename(entry) not in ("site-packages", "dist-packages")
            and (entry == STDLIB or entry.startswith(STDLIB + os.sep) or os.path.basename(entry) == archive)
        )
    return [task_root, *layers, runtime_dir, *extra, *_library]


def settle_folder(folder: str) -> list[str]:
    """Honour what the function or a layer brings in ``folder``: path files, and modules of its own in place of preloaded ones.

    Gives the names in the folder.
    """
    sys.path_importer_cache.pop(folder, None)
    if not os.access(folder, os.R_OK):  # the usual case for layers, at less than the price of an exception
        return []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    if any(name.endswith(".pth") for name in names):
        handler_code.forget()  # they may hold code
        site.addsitedir(folder)
    shadowed = set()
    for name in names:
        top, _, suffix = name.partition(".")
        if top in preloaded and _is_module(os.path.join(folder, name), suffix):
            shadowed.add(top)
    if shadowed:
        _forget(shadowed)
    return names


def expect_handler(handler: str, folder: str, names: list[str]) -> None:
    """Find the module of ``handler`` at once where there is no doubt about it. ``names`` are those in ``folder``, the first on the path."""
    module = handler.rpartition(".")[0]
    if module.isidentifier() and module not in sys.modules and PathFinder in sys.meta_path and not _imp.is_frozen(module):
        rivals = [name for name in names if name.partition(".")[0] == module or name == "__pycache__" or name.endswith(".pth")]
        if rivals == [module + ".py"]:
            sys.meta_path.insert(0, HandlerFinder(module, folder))
            return
    handler_code.forget()


class HandlerFinder:
    """Finds one module, once: the file ``<folder>/<module>.py``."""

    def __init__(self, module: str, folder: str) -> None:
        self._module = module
        self._folder = folder

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        file = f"{self._folder}/{name}.py"
        loader = HandlerLoader(name, file)
        try:
            facts = os.stat(file)
        except OSError:
            facts = None
        if facts is None or facts.st_mode & _KIND != _REGULAR:
            handler_code.forget()
            return None
        loader.source = (facts.st_mtime_ns, facts.st_size)
        spec = ModuleSpec(name, loader, origin=file)
        spec.has_location = True
        if sys.pycache_prefix is None and not sys.flags.optimize:
            spec.cached = f"{self._folder}/__pycache__/{name}.{sys.implementation.cache_tag}.pyc"
        return spec


class HandlerLoader(SourceFileLoader):
    """The usual loader, but it does not look for cached bytecode, which is known not to be there, and leaves none in a read-only folder.

    Another environment may have compiled the very same source with the very same interpreter; then its bytecode is taken.
    """

    source = (0, 0)  # when it was changed (ns), its size

    def get_code(self, fullname: str) -> CodeType:
        code = handler_code.known(self.source)
        if code is None:
            code = handler_code.compile(self._compile, self.source)
        handler_code.forget()
        return code

    def _compile(self) -> CodeType:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            left, data = os.fstat(fd).st_size, []
            while left > 0 and (piece := os.read(fd, left)):
                data.append(piece)
                left -= len(piece)
        finally:
            os.close(fd)
        code: CodeType = self.source_to_code(b"".join(data), str(self.path))
        return code


class HandlerCode:
    """What the handler's module was compiled to, by this environment or another one (``sandbox/bytecode.py``).

    On the way it is a head (magic number, source, length) and the code as ``marshal`` writes it. A source that makes the compiler
    warn is not told of: each environment is to warn.
    """

    def __init__(self) -> None:
        self._known = self._learn = -1

    def attach(self, known: int, learn: int) -> None:
        """Descriptors: of what is known, and of where to say what is not; -1 for none."""
        self._known, self._learn = known, learn

    def forget(self) -> None:
        """Close what is open. From here on it is too late to say anything; the function's code may run."""
        for fd in (self._known, self._learn):
            if fd >= 0:
                os.close(fd)
        self._known = self._learn = -1

    def known(self, source: tuple[int, int]) -> CodeType | None:
        """The code, if it is that of ``source``."""
        if self._known < 0:
            return None
        try:
            magic, *facts, size = _CODE_HEAD.unpack(os.pread(self._known, _CODE_HEAD.size, 0))
            if magic != MAGIC_NUMBER or tuple(facts) != source:
                return None
            body = os.pread(self._known, size, _CODE_HEAD.size)
            code = marshal.loads(body) if len(body) == size else None
        except (OSError, ValueError, EOFError, TypeError, struct.error):
            return None
        return code if isinstance(code, CodeType) else None

    def compile(self, how: Callable[[], CodeType], source: tuple[int, int]) -> CodeType:
        """Compile, and say what came of it."""
        if self._learn < 0:
            return how()
        with warnings.catch_warnings(record=True) as seen:
            code = how()
        for each in seen:
            warnings.showwarning(each.message, each.category, each.filename, each.lineno, each.file, each.line)
        if not seen:
            body = marshal.dumps(code)
            left = memoryview(_CODE_HEAD.pack(MAGIC_NUMBER, *source, len(body)) + body)
            try:
                while left:
                    left = left[os.write(self._learn, left) :]
            except OSError:
                pass  # the launcher has gone
        return code


handler_code = HandlerCode()


class AsideFinder(Loader):
    """Finds modules that are loaded already and were put aside."""

    def __init__(self) -> None:
        self.modules: dict[str, ModuleType] = {}
        self._is_settled = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in self.modules:
            return None
        if not self._is_settled:
            self._is_settled = True
            if not self._is_first():
                _forget({name.partition(".")[0]})
                return None
        known = self.modules[name].__spec__
        assert known is not None
        spec = ModuleSpec(name, self, origin=known.origin, loader_state=known)
        spec.submodule_search_locations = known.submodule_search_locations
        spec.has_location = known.has_location
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.modules.pop(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; all that the import system has changed is its spec."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def _is_first(self) -> bool:
        """Would a search find these very packages, all of them? The folders of the usual path have been looked at already."""
        if sys.path == search_path(sys.path):
            return True
        packages = {name: module for name, module in self.modules.items() if "." not in name}
        found = {name: PathFinder.find_spec(name) for name in packages}
        return all(spec is not None and spec.origin == packages[name].__file__ for name, spec in found.items())


aside = AsideFinder()


def _is_module(path: str, suffix: str) -> bool:
    """A folder without ``__init__`` is a namespace package and gives way to regular modules further down the path."""
    if suffix:
        return suffix in ("py", "pyc") or suffix.endswith("so")
    return os.path.exists(os.path.join(path, "__init__.py"))


def _forget(shadowed: set[str]) -> None:
    """Unload preloaded modules that the function brings itself; as one, where they belong to the AWS SDK and what it stands on."""
    if not all(preloaded[top] for top in shadowed):
        shadowed = shadowed | {top for top, is_stdlib in preloaded.items() if not is_stdlib}
    for modules in (sys.modules, aside.modules):
        for name in list(modules):
            if name.partition(".")[0] in shadowed:
                del modules[name]
    for top in shadowed:
        del preloaded[top]
