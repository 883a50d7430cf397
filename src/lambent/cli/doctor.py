"""``lambent doctor``: what this machine gives, what it lacks, and how to get that. Needs no server.

Isolation is not inferred but tried: the driver that a server would choose is opened, asked what it gives, and closed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from lambent import __version__
from lambent.cli.api import JsonOption
from lambent.cli.screen import Trouble, is_terminal, say, show_json, styled, table
from lambent.errors import LambentError
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.identifiers import SUPPORTED
from lambent.runtimes.packages import has_sdk
from lambent.sandbox.choose import make_driver
from lambent.sandbox.driver import IsolationReport
from lambent.settings import BadSetting, Settings, load


def doctor(
    config: Annotated[Path | None, typer.Option(help="The server's TOML file, if it has one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which interpreters and which isolation this machine gives, and what is missing."""
    try:
        settings = load(config)
    except BadSetting as error:
        raise Trouble(str(error)) from error
    catalogue = Catalogue(settings.sandbox.interpreters)
    findings = {
        "lambent": __version__,
        "machine": _machine(),
        "isolation": _isolation(settings, catalogue),
        **_interpreters(settings, catalogue),
    }
    if as_json:
        show_json(findings)
    else:
        _tell(findings)
    if not findings["interpreters"]:
        raise typer.Exit(1)


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memoryMb": memory // 2**20,
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
    }


def _isolation(settings: Settings, catalogue: Catalogue) -> dict[str, Any]:
    logging.disable(logging.WARNING)  # what a server would log is told here in better words
    try:
        with tempfile.TemporaryDirectory(prefix="lambent-doctor-") as folder:
            report = asyncio.run(_open_and_close(settings, catalogue, Path(folder)))
    except LambentError as error:
        return {"driver": None, "reason": str(error), "facts": {}, "missing": []}
    finally:
        logging.disable(logging.NOTSET)
    return {"driver": report.driver, "reason": report.reason, "facts": dict(report.facts), "missing": list(report.missing)}


async def _open_and_close(settings: Settings, catalogue: Catalogue, folder: Path) -> IsolationReport:
    driver = make_driver(settings.sandbox, folder, catalogue, settings.port)
    await driver.open()
    try:
        return driver.report
    finally:
        await driver.close()


def _interpreters(settings: Settings, catalogue: Catalogue) -> dict[str, Any]:
    installed = catalogue.installed()
    return {
        "interpreters": [
            {
                "runtime": found.runtime,
                "version": found.version_text,
                "executable": found.executable,
                "boto3": has_sdk(found, settings.sandbox.packages),
            }
            for found in installed
        ],
        "missingRuntimes": [name for name in SUPPORTED if name not in {found.runtime for found in installed}],
        "rejected": catalogue.rejected(),
        "searched": catalogue.searched(),
    }


def _tell(findings: dict[str, Any]) -> None:
    machine, isolation = findings["machine"], findings["isolation"]
    say(
        f"Lambent {findings['lambent']} on Linux {machine['kernel']} ({machine['architecture']}), {machine['cpus']} CPUs, "
        f"{machine['memoryMb']} MB, as {machine['user']}"
    )
    _title("Isolation")
    if isolation["driver"] is None:
        styled(f"a server would not start: {isolation['reason']}", "bold red")
    else:
        isolated = isolation["driver"] != "process"
        styled(f"{isolation['driver']}: {isolation['reason']}", "green" if isolated else "bold red")
        if not isolated:
            styled("Functions run WITHOUT ISOLATION here, as plain processes of this user.", "bold red")
    table(("", ""), list(isolation["facts"].items()))
    for line in isolation["missing"]:
        styled(f"missing: {line}", "yellow")
    _title("Interpreters")
    rows = [
        (found["runtime"], found["version"], "with boto3" if found["boto3"] else "without boto3", found["executable"])
        for found in findings["interpreters"]
    ]
    table(("RUNTIME", "VERSION", "SDK", "PROGRAM"), rows, "none was found: no function can run")
    for path, why in findings["rejected"].items():
        say(f"passed over: {path}: {why}")
    if findings["missingRuntimes"]:
        styled(f"missing: {', '.join(findings['missingRuntimes'])}", "yellow")
        say("  install them (Debian: apt-get install python3.x; pyenv install 3.x) or name them under [sandbox] interpreters")
        say(f"  {len(findings['searched'])} places were searched: see --json")
    if any(not found["boto3"] for found in findings["interpreters"]):
        styled("missing: boto3 for some interpreters: run `python -m lambent.runtimes.prepare` once, with a network", "yellow")


def _title(text: str) -> None:
    if is_terminal():
        say()
        styled(text, "bold")
