"""dotnet6, dotnet8, dotnet10: executable assemblies, where the machine has ``dotnet`` with that major version.

An *executable assembly* is a program that starts AWS's ``Amazon.Lambda.RuntimeSupport`` itself; the handler is the assembly's name, and
running it is ``dotnet /var/task/<Assembly>.dll`` with the Runtime API over HTTP. ``entry`` gives that, or says in plain words why not.

A *class library handler* (``Assembly::Namespace.Class::Method``) needs a bootstrap that loads the assembly, which AWS keeps in its runtime
image and does not publish as a program. Lambent has none: such functions answer an init error that says so, and says what to do.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence

from lambent.runtimes.plan import RuntimePlan
from lambent.runtimes.provided import Bootstrap

RUNTIMES = ("dotnet6", "dotnet8", "dotnet10")
_ROOTS = ("/usr/lib/dotnet", "/usr/share/dotnet", "/usr/lib64/dotnet", "/opt/dotnet", "~/.dotnet")
_SHARED = os.path.join("shared", "Microsoft.NETCore.App")
_RELEASE = re.compile(r"\d+\.\d+\.\d+")


def find(runtime: str, configured: Sequence[str], environ: Mapping[str, str]) -> RuntimePlan | str:
    """How ``runtime`` is run here, or a sentence that says what is missing. Looks at folders only; runs nothing."""
    major = runtime.removeprefix("dotnet")
    best: tuple[tuple[int, ...], str] | None = None
    for root in _roots(configured, environ):
        for version in _releases(os.path.join(root, _SHARED)):
            key = tuple(map(int, version.split(".")))
            if version.split(".")[0] == major and (best is None or key > best[0]):
                best = (key, root)
    if best is None:
        return (
            f"no .NET {major} runtime is on this machine. Install the .NET {major} runtime, or name its folder under [sandbox] interpreters"
        )
    version, root = ".".join(map(str, best[0])), best[1]
    system = root.startswith("/usr/") and not root.startswith("/usr/local/")
    inside = root if system else "/var/lang"
    return RuntimePlan(
        runtime=runtime,
        version=version,
        transport="http",
        prefix="/usr" if system else root,
        argv=(f"{inside}/dotnet",),
        environment={"DOTNET_ROOT": inside, "DOTNET_CLI_TELEMETRY_OPTOUT": "1", "DOTNET_NOLOGO": "1"},
    )


def entry(plan: RuntimePlan, handler: str, code_dir: str) -> Bootstrap:
    """What is executed for a version with ``handler`` and its code in ``code_dir`` (a folder of the host)."""
    nothing = ("/var/runtime/nothing",)  # which does not exist
    if "::" in handler:
        return Bootstrap(
            nothing,
            f"Lambent runs executable assemblies only, and {handler} is a handler of a class library. Add a Main that starts "
            "Amazon.Lambda.RuntimeSupport's LambdaBootstrapBuilder and set the handler to the assembly's name",
        )
    assembly = handler.removesuffix(".dll")
    if not assembly or "/" in assembly or not os.path.isfile(os.path.join(code_dir, f"{assembly}.dll")):
        return Bootstrap(nothing, f"the function has no file {assembly}.dll, which its handler names")
    return Bootstrap((*plan.argv, f"/var/task/{assembly}.dll"))


def _roots(configured: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    found = [entry for entry in configured if "=" not in entry]
    found += [environ["DOTNET_ROOT"]] if environ.get("DOTNET_ROOT") else []
    program = shutil.which("dotnet", path=environ.get("PATH", ""))
    found += [os.path.dirname(os.path.realpath(program))] if program else []
    home = environ.get("HOME", "")
    found += [folder.replace("~", home, 1) for folder in _ROOTS if home or not folder.startswith("~")]
    expanded = (os.path.realpath(os.path.expanduser(folder)) for folder in found)
    return [folder for folder in dict.fromkeys(expanded) if os.path.isfile(os.path.join(folder, "dotnet"))]


def _releases(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if _RELEASE.fullmatch(name)]
    except OSError:
        return []
