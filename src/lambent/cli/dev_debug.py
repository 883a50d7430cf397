"""``lambent dev --debug``: a function that a debugger can be attached to, for as long as the command runs.

Nothing in the function's code changes. A layer of ours is put under it that makes its runtime listen inside the sandbox: for Python one
with ``debugpy`` and a path file that starts it, for Node.js an exec wrapper that adds ``--inspect``. The server leads a port of this
machine to the function's newest environment (``invoke/debug_ports.py``); while an editor is connected, no timeout ends that environment.

When the command ends the function is as it was: the layer, the variable and the memory are taken back.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambent.cli import deploy
from lambent.cli.api import plain_errors
from lambent.cli.bundle import entry
from lambent.cli.screen import Trouble, remark

_MEMORY_MB = 512  # a debugger needs some of its own
_RENEW_S = 10.0
_WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"
_ELSEWHERE = frozenset({".dll", ".dylib", ".exe", ".lib"})  # debugpy's parts for other systems
_PORTS = {"python": 5678, "nodejs": 9229}
_START = """\
import os
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
import debugpy
debugpy.listen(("127.0.0.1", 5678))
"""
_INSPECT = '#!/bin/bash\nexec "$1" --inspect=127.0.0.1:9229 "${@:2}"\n'
_HOW = {
    "python": 'debugpy: {{"type": "debugpy", "request": "attach", "connect": {{"host": "127.0.0.1", "port": {port}}}, '
    '"pathMappings": [{{"localRoot": "{root}", "remoteRoot": "/var/task"}}]}}',
    "nodejs": 'node: {{"type": "node", "request": "attach", "port": {port}, "restart": true, '
    '"localRoot": "{root}", "remoteRoot": "/var/task"}}',
}


@contextmanager
def debugging(api: Any, endpoint: str, name: str, port: int | None, folder: Path) -> Iterator[None]:
    """Let debuggers in for the length of the block. ``port`` is this machine's, by default the debugger's usual one. Raises ``Trouble``."""
    with plain_errors(endpoint):
        before = api.get_function_configuration(FunctionName=name)
        family = next((each for each in _PORTS if before["Runtime"].startswith(each)), "")
        if not family:
            raise Trouble(f"there is no debugger for {before['Runtime']} functions: --debug is for Python and Node.js")
        number = _lease(endpoint, name, _PORTS[family], port if port is not None else _PORTS[family])
        changed = _settings(before, _layer(api, family), family)
        _configure(api, name, changed)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(endpoint, name, _PORTS[family], number, stop), daemon=True)
    renewing.start()
    remark(f"A debugger may attach at 127.0.0.1:{number} at any time. For an editor that speaks launch.json:")
    remark("  " + _HOW[family].format(port=number, root=folder.resolve()))
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        with plain_errors(endpoint):
            _configure(api, name, {key: _original(before)[key] for key in changed})


def _settings(before: dict[str, Any], layer: str, family: str) -> dict[str, Any]:
    """What the function needs to be debugged, over what it has."""
    own = _original(before)
    changed: dict[str, Any] = {"Layers": [*own["Layers"], layer]}
    if before["MemorySize"] < _MEMORY_MB:
        changed["MemorySize"] = _MEMORY_MB
    if family == "nodejs":
        variables = own["Environment"]["Variables"]
        if _WRAPPER in variables:
            raise Trouble(f"the function has an {_WRAPPER} of its own, and --debug needs one for Node.js")
        changed["Environment"] = {"Variables": {**variables, _WRAPPER: "/opt/lambent-debug"}}
    return changed


def _original(before: dict[str, Any]) -> dict[str, Any]:
    """The function's own settings; what an earlier session that was killed has left is not among them."""
    layers = [each["Arn"] for each in before.get("Layers", []) if ":layer:lambent-debug-" not in each["Arn"]]
    variables = dict(before.get("Environment", {}).get("Variables", {}))
    if variables.get(_WRAPPER) == "/opt/lambent-debug":
        del variables[_WRAPPER]
    return {"Layers": layers, "Environment": {"Variables": variables}, "MemorySize": before["MemorySize"]}


def _configure(api: Any, name: str, settings: dict[str, Any]) -> None:
    deploy.wait(api, "function_updated_v2", name)
    api.update_function_configuration(FunctionName=name, **settings)
    deploy.wait(api, "function_updated_v2", name)


# ----------------------------------------------------------------------------------------------------------------- the port


def _lease(endpoint: str, name: str, inside: int, port: int) -> int:
    url = f"{endpoint.rstrip('/')}/_lambent/debug/{name}?inside={inside}&port={port}"
    request = urllib.request.Request(url, b"", {"x-lambent-debug": "1"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            number: int = json.load(answer)["port"]
            return number
    except urllib.error.HTTPError as error:
        body = json.loads(error.read() or b"{}")
        raise Trouble(body.get("message") or body.get("Message") or str(error)) from error
    except OSError as error:
        raise Trouble(f"{endpoint} cannot be reached: {error}") from error


def _renew(endpoint: str, name: str, inside: int, number: int, stop: threading.Event) -> None:
    while not stop.wait(_RENEW_S):
        try:
            _lease(endpoint, name, inside, number)
        except Trouble as trouble:
            remark(f"debuggers can no longer attach: {trouble}")
            return


# ---------------------------------------------------------------------------------------------------------------- the layer


def _layer(api: Any, family: str) -> str:
    """The ARN of our layer for ``family``, published unless it is there."""
    content = _zip(_python() if family == "python" else {"lambent-debug": (_INSPECT.encode(), True)})
    digest = hashlib.sha256(content).hexdigest()
    name = f"lambent-debug-{family}"
    for version in api.list_layer_versions(LayerName=name)["LayerVersions"]:
        if version.get("Description") == digest:
            arn: str = version["LayerVersionArn"]
            return arn
    published: str = api.publish_layer_version(LayerName=name, Description=digest, Content={"ZipFile": content})["LayerVersionArn"]
    return published


def _python() -> dict[str, tuple[bytes, bool]]:
    spec = find_spec("debugpy")
    if spec is None or spec.origin is None:
        raise Trouble("debugpy is not installed beside Lambent: pip install debugpy")
    package = Path(spec.origin).parent
    files = {
        "python/lambent_debug.pth": (b"import lambent_debug_start\n", False),
        "python/lambent_debug_start.py": (_START.encode(), False),
    }
    for path in sorted(package.rglob("*")):
        below = path.relative_to(package.parent)
        if path.is_file() and "__pycache__" not in below.parts and path.suffix not in _ELSEWHERE:
            files[f"python/{below}"] = (path.read_bytes(), False)
    return files


def _zip(files: dict[str, tuple[bytes, bool]]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (content, executable) in sorted(files.items()):
            archive.writestr(entry(name, executable), content)
    return memory.getvalue()
