"""The documents are tested: what exists is in them, and what they point at exists. Each function gives a line per complaint."""

from __future__ import annotations

import re
from dataclasses import fields

import typer

from lambent.cli.commands import app
from lambent.settings import (
    AsyncSettings,
    Credential,
    EndpointSettings,
    ImageSettings,
    Limits,
    RegistryCredential,
    S3Settings,
    SandboxSettings,
    Settings,
)
from tools.code_checks import SOURCE, TOP

ARCHITECTURE_LINES = 300
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
_GROUPS = {
    "": Settings,
    "limits": Limits,
    "sandbox": SandboxSettings,
    "images": ImageSettings,
    "registries": RegistryCredential,
    "s3": S3Settings,
    "async": AsyncSettings,
    "endpoints": EndpointSettings,
    "credentials": Credential,
}


def settings_documented() -> list[str]:
    """``docs/settings.md`` has a section for every group and in it a row for every setting, and no row for any other."""
    text = (TOP / "docs" / "settings.md").read_text()
    sections = dict(re.findall(r"^## (?:\[+(\w+)\]+|Top level)[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    found = []
    for group, kind in _GROUPS.items():
        documented = set(re.findall(r"^\| `(\w+)`", sections.get(group, ""), re.MULTILINE))
        known = {entry.name for entry in fields(kind)} - ({*_GROUPS, "async_events"} if not group else set())
        where = group or "top level"
        found += [f"docs/settings.md: {where}: `{name}` is missing" for name in sorted(known - documented)]
        found += [f"docs/settings.md: {where}: `{name}` is no setting" for name in sorted(documented - known)]
    return found


def commands_documented() -> list[str]:
    """README.md names every command of ``lambent``."""
    text = (TOP / "README.md").read_text()
    names = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    return [f"README.md: `lambent {name}` is missing" for name in names if f"lambent {name}" not in text]


def architecture_complete() -> list[str]:
    """``ARCHITECTURE.md`` mentions every module of the package by its path, in under 300 lines."""
    path = TOP / "ARCHITECTURE.md"
    if not path.is_file():
        return ["ARCHITECTURE.md is missing"]
    text = path.read_text()
    found = []
    if len(text.splitlines()) >= ARCHITECTURE_LINES:
        found.append(f"ARCHITECTURE.md has {len(text.splitlines())} lines, fewer than {ARCHITECTURE_LINES} are wanted")
    for module in sorted(SOURCE.rglob("*.py")):
        if module.name != "__init__.py" and module.name not in text:
            found.append(f"ARCHITECTURE.md does not mention {module.relative_to(SOURCE)}")
    return found


def links_lead_somewhere() -> list[str]:
    """Relative links in the documents lead to files."""
    found = []
    for path in sorted([*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md"), *(TOP / "examples").rglob("*.md")]):
        for target in _LINK.findall(path.read_text()):
            if not (path.parent / target).exists():
                found.append(f"{path.relative_to(TOP)}: {target} does not exist")
    return found
