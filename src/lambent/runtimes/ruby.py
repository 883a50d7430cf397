"""Ruby: finds the MRI for a runtime, and plans how it is run with our client in ``runtime_api/ruby_client``.

A managed runtime means one minor version, since gems with compiled parts and the standard library belong to it; so ``ruby3.3`` runs on a
Ruby 3.3 and on nothing else. Who wants another on purpose says so in the settings, by name: an entry ``ruby3.3=/usr/bin/ruby`` of
``[sandbox] interpreters`` runs ``ruby3.3`` functions on that binary. INIT_START then tells the version that it truly is.

Where a prefix other than ``/usr`` is shown at ``/var/lang``, a Ruby that was not built to be moved still looks for its library where it was
installed; the folders of the library therefore stand at the end of ``RUBYLIB``, as they are seen inside.
"""

from __future__ import annotations

import glob
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lambent import runtime_api
from lambent.runtimes.interpreter import is_program
from lambent.runtimes.plan import RuntimePlan

RUNTIMES = ("ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0")

_QUESTION = """
require 'rbconfig'
c = RbConfig::CONFIG
puts RUBY_ENGINE, RUBY_VERSION, c['ruby_version'], c['prefix'], RUBY_PATCHLEVEL
puts c.values_at('vendorlibdir', 'vendorarchdir', 'rubylibdir', 'rubyarchdir').compact.join(':')
puts [*(Gem.default_path if defined?(Gem))].join(':')
"""
_DEADLINE_S = 10.0
_MANAGERS = (  # folders of versions, under a home; each version holds bin/
    ".rbenv/versions",
    ".rvm/rubies",
    ".rubies",
    ".asdf/installs/ruby",
    ".local/share/mise/installs/ruby",
    ".local/share/rtx/installs/ruby",
)
_ROOTS = (
    ("RBENV_ROOT", "versions"),
    ("ASDF_DATA_DIR", "installs/ruby"),
    ("MISE_DATA_DIR", "installs/ruby"),
)
_FOLDERS = ("/opt/rubies/*/bin", "/usr/local/rvm/rubies/*/bin", "/usr/bin", "/usr/local/bin", "/bin")
_CLIENT = "lambent"  # our client's folder below /var/runtime
_PROGRAM = f"/var/runtime/{_CLIENT}/client.rb"


@dataclass(frozen=True, slots=True)
class Ruby:
    """A Ruby of this machine; paths are the host's, links resolved."""

    executable: str
    version: tuple[int, int, int]
    abi: str  # "3.3.0": the name of its folders of gems
    prefix: str
    preview: bool
    library: tuple[str, ...]
    gems: tuple[str, ...]

    @property
    def runtime(self) -> str:
        return f"ruby{self.version[0]}.{self.version[1]}"

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))

    def inside(self, path: str) -> str:
        """Where the sandbox sees a path of the host's below the prefix."""
        return path if self.prefix == "/usr" else "/var/lang" + path[len(self.prefix) :] if path.startswith(self.prefix + "/") else path


def find(runtime: str, configured: Sequence[str], environ: Mapping[str, str]) -> RuntimePlan | str:
    """How ``runtime`` is run here, or a sentence that says what is missing. Asks every Ruby that it finds (10 ms each)."""
    chosen = explicit(runtime, configured)
    if chosen is not None:
        answer = ask(os.path.realpath(chosen)) if os.path.isfile(chosen) else "there is no such file"
        return _plan(runtime, answer) if isinstance(answer, Ruby) else f"[sandbox] interpreters names {chosen} for {runtime}, but {answer}"
    other: list[str] = []
    for group in (_configured(configured), _searched(environ)):
        rubies = [answer for path in group if isinstance(answer := ask(path), Ruby)]
        fitting = [ruby for ruby in rubies if ruby.runtime == runtime]
        if fitting:
            return _plan(runtime, max(fitting, key=lambda ruby: (not ruby.preview, ruby.version, ruby.prefix == "/usr")))
        other += [ruby.version_text for ruby in rubies]
    minor = runtime.removeprefix("ruby")
    found = f"; it has Ruby {', '.join(dict.fromkeys(other))}" if other else ""
    return (
        f"Lambent found no Ruby {minor} on this machine{found}. Install Ruby {minor}, "
        f'or name a binary of your choice for it in [sandbox] interpreters: "{runtime}=/path/to/ruby"'
    )


def explicit(runtime: str, configured: Sequence[str]) -> str | None:
    """The path of an entry ``<runtime>=<path>``; the last one counts."""
    named = [entry.partition("=") for entry in configured]
    paths = [path for name, equals, path in named if equals and name.strip() == runtime]
    return os.path.expanduser(paths[-1].strip()) if paths else None


def ask(executable: str) -> Ruby | str:
    """What a binary says of itself, or why it is of no use."""
    try:
        answer = subprocess.run(
            [executable, "-e", _QUESTION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_DEADLINE_S,
            env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            check=False,
        )
        engine, version, abi, prefix, patch, library, gems, *_ = [*answer.stdout.decode().split("\n"), ""]
        major, minor, tiny = (int(part) for part in version.split("."))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"it does not answer as a Ruby does ({type(error).__name__})"
    if engine != "ruby":
        return f"it is {engine}, and AWS runs MRI"
    return Ruby(
        executable=executable,
        version=(major, minor, tiny),
        abi=abi,
        prefix=os.path.realpath(prefix),
        preview=patch == "-1",
        library=tuple(folder for folder in library.split(":") if os.path.isdir(folder)),
        gems=tuple(folder for folder in gems.split(":") if os.path.isdir(folder)),
    )


def _plan(runtime: str, ruby: Ruby) -> RuntimePlan:
    system = ruby.prefix == "/usr"
    executable = ruby.inside(ruby.executable)
    gems = [f"/var/task/vendor/bundle/ruby/{ruby.abi}", f"/opt/ruby/gems/{ruby.abi}"]
    gems += [ruby.inside(folder) for folder in ruby.gems if folder.startswith(ruby.prefix + "/")]
    library = ["/var/task", "/var/runtime/lib", "/opt/ruby/lib"]
    library += [] if system else [ruby.inside(folder) for folder in ruby.library if folder.startswith(ruby.prefix + "/")]
    return RuntimePlan(
        runtime=runtime,
        version=ruby.version_text,
        transport="frames",
        prefix=ruby.prefix,
        runtime_dir=((_CLIENT, str(client_folder())),),
        argv=(executable, _PROGRAM),
        warm=(executable, _PROGRAM, "--warm"),
        environment={"GEM_PATH": ":".join(gems), "RUBYLIB": ":".join(library)},
    )


def client_folder() -> Path:
    """Our client's folder on the host."""
    return Path(runtime_api.__path__[0], "ruby_client").resolve()


def _configured(entries: Sequence[str]) -> Iterator[str]:
    """Binaries, folders of them, prefixes, folders of prefixes."""
    plain = [os.path.expanduser(entry) for entry in entries if "=" not in entry]
    files = (entry for entry in plain if os.path.isfile(entry) and os.path.basename(entry).startswith("ruby"))
    folders = (pattern for entry in plain for pattern in (entry, os.path.join(entry, "bin"), os.path.join(entry, "*", "bin")))
    return _programs([*files, *_rubies(folders)])


def _searched(environ: Mapping[str, str]) -> Iterator[str]:
    patterns = [os.path.join(environ[name], inside, "*", "bin") for name, inside in _ROOTS if environ.get(name)]
    home = environ.get("HOME")
    patterns += [os.path.join(home, folder, "*", "bin") for folder in _MANAGERS] if home else []
    patterns += [folder for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    return _programs(_rubies([*patterns, *_FOLDERS]))


def _rubies(folders: Sequence[str] | Iterator[str]) -> list[str]:
    found: list[str] = []
    for folder in folders:
        found += sorted(path for path in glob.glob(os.path.join(folder, "ruby*")) if _is_name(os.path.basename(path)))
    return found


def _is_name(name: str) -> bool:
    """``ruby``, ``ruby3.3``, ``ruby33``, ``ruby-3.3``, and not ``rubygems``."""
    return not name.removeprefix("ruby").lstrip("-").replace(".", "").strip("0123456789")


def _programs(paths: Sequence[str]) -> Iterator[str]:
    for path in dict.fromkeys(os.path.realpath(path) for path in paths):
        if os.access(path, os.X_OK) and is_program(path):
            yield path
