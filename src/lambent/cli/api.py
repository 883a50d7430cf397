"""Talking to a running server: boto3 for AWS's operations, plain HTTP for the platform's own pages under ``/_lambent/``.

The credentials are the server's business in its default mode, where any will do. With ``auth = "signature"`` set
``LAMBENT_ACCESS_KEY_ID`` and ``LAMBENT_SECRET_ACCESS_KEY``; AWS's own variables are left alone on purpose, so that real keys never
travel to a local server by accident.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from lambent.cli.screen import Trouble

DEFAULT_ENDPOINT = "http://127.0.0.1:4566"

EndpointOption = Annotated[str, typer.Option("--endpoint", envvar="LAMBENT_ENDPOINT", help="Where the server listens.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client(service: str, endpoint: str, read_timeout: float = 60.0, attempts: int = 2) -> Any:
    """A boto3 client of ``service`` for ``endpoint``. ``attempts`` counts the first one."""
    import boto3
    from botocore.config import Config

    require_address(endpoint)
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        aws_access_key_id=os.environ.get("LAMBENT_ACCESS_KEY_ID", "test"),
        aws_secret_access_key=os.environ.get("LAMBENT_SECRET_ACCESS_KEY", "test"),
        config=Config(read_timeout=read_timeout, connect_timeout=5, retries={"total_max_attempts": attempts}),
    )


@contextmanager
def plain_errors(endpoint: str) -> Iterator[None]:
    """Turn what boto3 raises into a ``Trouble``, in words that say what to do."""
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, WaiterError

    try:
        yield
    except ClientError as error:
        detail = error.response.get("Error", {})
        raise Trouble(f"{detail.get('Code', 'Error')}: {detail.get('Message', error)}") from error
    except WaiterError as error:
        configuration = error.last_response.get("Configuration", error.last_response)
        reason = configuration.get("StateReason") or configuration.get("LastUpdateStatusReason") or str(error)
        raise Trouble(f"the function did not become ready: {reason}") from error
    except (ConnectionError, HTTPClientError) as error:
        raise Trouble(f"{unreachable(endpoint)} ({error})") from error
    except BotoCoreError as error:
        raise Trouble(" ".join(str(error).split())) from error


def page(endpoint: str, path: str) -> Any:
    """The JSON behind ``GET /_lambent/<path>``. Raises ``Trouble``, with the server's own message on a 404."""
    return _speak(endpoint, path, "GET", {})


def order(endpoint: str, path: str, headers: dict[str, str]) -> Any:
    """The JSON that answers ``POST /_lambent/<path>``. Raises ``Trouble``."""
    return _speak(endpoint, path, "POST", headers)


def _speak(endpoint: str, path: str, method: str, headers: dict[str, str]) -> Any:
    require_address(endpoint)
    try:
        url = f"{endpoint.rstrip('/')}/_lambent/{path}"
        request = urllib.request.Request(url, headers={**headers, **signature(url, method)}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        body = error.read().decode(errors="replace")
        raise Trouble(message_of(body) or f"{endpoint} answered {error.code} to /_lambent/{path}") from error
    except json.JSONDecodeError as error:
        raise Trouble(f"{endpoint} is not a Lambent server") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Trouble(unreachable(endpoint)) from error


def signature(url: str, method: str, sha256: str = "") -> dict[str, str]:
    """The headers that sign a request for one of the server's own pages; none without a key in the environment."""
    key, secret = os.environ.get("LAMBENT_ACCESS_KEY_ID"), os.environ.get("LAMBENT_SECRET_ACCESS_KEY")
    if not key or not secret:
        return {}
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method, url, {"X-Amz-Content-SHA256": sha256} if sha256 else {})
    SigV4Auth(Credentials(key, secret), "lambda", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def require_address(endpoint: str) -> None:
    """Raises ``Trouble`` for what cannot be the address of a server."""
    try:
        parts = urlsplit(endpoint)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    except ValueError:  # a port that is none
        pass
    raise Trouble(f"--endpoint {endpoint}: expected something like {DEFAULT_ENDPOINT}")


def unreachable(endpoint: str) -> str:
    """What to tell about a server that is not there."""
    return f"cannot reach a server at {endpoint}: start one with `lambent up`, or name another with --endpoint"


def message_of(body: str) -> str:
    """The server's own message in an error document; ``""`` without one."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("message") or document.get("Message") or "") if isinstance(document, dict) else ""
