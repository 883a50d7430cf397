"""Credentials of registries: from the settings, else from Docker's ``config.json``, as ``docker login`` and ``podman login`` leave it.

Of that file the ``auths`` are read, and the helpers (``credHelpers``, ``credsStore``): programs named ``docker-credential-<name>`` that get
a host on stdin and answer with JSON. That is how registries with short-lived passwords, ECR among them, are met.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambent.settings import RegistryCredential

HELPER_SECONDS = 30.0
_HELPER = re.compile(r"[a-zA-Z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Key:
    """``refresh`` is an OAuth 2 refresh token, which some registries give instead of a password."""

    username: str = ""
    password: str = ""
    refresh: str = ""

    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class RegistryKeys:
    """Looks anew each time, so that a login counts at once. Blocking."""

    def __init__(self, configured: Sequence[RegistryCredential], docker_config: str = "") -> None:
        self._configured = {entry.host: Key(entry.username, entry.password) for entry in configured}
        self._path = Path(docker_config) if docker_config else _docker_config()

    def find(self, host: str) -> Key | None:
        """The key for ``host`` ("name" or "name:port"), if there is one."""
        found = self._configured.get(host)
        if found is not None:
            return found
        document = self._read()
        helper = _object(document.get("credHelpers")).get(host) or document.get("credsStore")
        if isinstance(helper, str) and (key := _ask(helper, host)) is not None:
            return key
        auths = _object(document.get("auths"))
        for name in (host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"):
            if isinstance(auths.get(name), dict) and (key := _from_entry(auths[name])) is not None:
                return key
        return None

    def _read(self) -> dict[str, Any]:
        try:
            return _object(json.loads(self._path.read_bytes()))
        except (OSError, ValueError):
            return {}


def _docker_config() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path(os.path.expanduser("~")) / ".docker") / "config.json"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _from_entry(entry: dict[str, Any]) -> Key | None:
    refresh = str(entry.get("identitytoken") or "")
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
    return Key(user, password.rstrip("\0"), refresh) if user or refresh else None


def _ask(helper: str, host: str) -> Key | None:
    if not _HELPER.fullmatch(helper):
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=host.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    if not isinstance(answer, dict) or not answer.get("Username"):
        return None
    if answer["Username"] == "<token>":
        return Key(refresh=str(answer.get("Secret", "")))
    return Key(str(answer["Username"]), str(answer.get("Secret", "")))
