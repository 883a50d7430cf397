"""Where interpreters live: the folders that are searched, from nothing but an environment and a home.

Every common way of installing CPython leaves ``bin/python3.<minor>`` somewhere; this module knows the somewheres. It only lists paths
and looks at what exists: nobody is asked anything yet (``interpreter.py`` asks).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence

from lambent.runtimes.interpreter import is_program

_MANAGERS = (  # folders of versions, under a home; each version holds bin/
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
)
_ROOTS = (  # variables that name a version manager's own folder, and where in it the versions are
    ("PYENV_ROOT", "versions"),
    ("UV_PYTHON_INSTALL_DIR", ""),
    ("ASDF_DATA_DIR", "installs/python"),
    ("MISE_DATA_DIR", "installs/python"),
)
_PREFIXES = ("miniconda3", "anaconda3", "miniforge3", "mambaforge")  # under a home; each holds bin/
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin", "/opt/python/bin", "/opt/conda/bin", "/home/linuxbrew/.linuxbrew/bin")


def searched(configured: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The patterns in which ``python3.<minor>`` is looked for, for people to read (``lambent doctor``)."""
    return [*configured, *_patterns(environ)]


def candidates(name: str, configured: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Programs that may be ``name`` ("python3.12"): those from the settings, and those found; links resolved, each once."""
    chosen = _programs(path for entry in configured for path in _entry(entry, name))
    found = _programs(path for pattern in _patterns(environ) for path in sorted(glob.glob(os.path.join(pattern, name))))
    return chosen, [path for path in found if path not in chosen]


def _entry(entry: str, name: str) -> Iterator[str]:
    """A configured entry is a binary, a folder of binaries, a prefix, or a folder of prefixes."""
    entry = os.path.expanduser(entry)
    if os.path.isfile(entry):
        yield entry
        return
    for pattern in (entry, os.path.join(entry, "bin"), os.path.join(entry, "*", "bin")):
        yield from sorted(glob.glob(os.path.join(pattern, name)))


def _patterns(environ: Mapping[str, str]) -> list[str]:
    homes = [environ["HOME"]] if environ.get("HOME") else []
    if "/root" not in homes:
        homes.append("/root")
    patterns = [os.path.join(environ[variable], inside, "*", "bin") for variable, inside in _ROOTS if environ.get(variable)]
    for home in homes:
        patterns += [os.path.join(home, folder, "*", "bin") for folder in _MANAGERS]
        patterns += [os.path.join(home, folder, "bin") for folder in _PREFIXES]
    patterns += [folder for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    patterns += _FOLDERS
    return list(dict.fromkeys(os.path.normpath(pattern) for pattern in patterns))


def _programs(paths: Iterator[str]) -> list[str]:
    resolved = dict.fromkeys(os.path.realpath(path) for path in paths)
    return [path for path in resolved if os.access(path, os.X_OK) and is_program(path)]
