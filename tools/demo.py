"""``make demo``: the first five minutes with Lambent, in ten seconds.

Starts a server on a free port with a temporary data directory, deploys ``examples/hello`` with boto3 as it would be deployed to AWS,
invokes it cold and warm, prints the answers, what the log says and where to go next, and stops the server again.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lambent.cli.bundle import bundle, guess_runtime
from lambent.errors import LambentError
from lambent.testing.local_server import LocalServer

HELLO = Path(__file__).parent.parent / "examples" / "hello"
NEXT = """
Where to go next
  make up                                     keep a server running on http://127.0.0.1:4566
  . .venv/bin/activate                        then, in another terminal:
  lambent deploy examples/hello               deploy a folder
  lambent invoke hello --payload '{"name": "Ada"}' --log
  lambent logs hello --follow                 what it prints
  lambent ps                                  where it runs
  lambent doctor                              what isolation this machine gives
  docs/quickstart.md                          boto3, the AWS CLI and all the rest
"""


def main() -> int:
    print("Starting a server with `lambent up` ...", flush=True)
    server = LocalServer()
    try:
        with server:
            isolation = server.health()["isolation"]
            print(f"  {server.endpoint}, isolation: {isolation['driver']} ({isolation['reason']})")
            demonstrate(server.client("lambda"))
            code = server.stop()
    except (LambentError, BotoCoreError, ClientError, OSError) as error:
        print(f"demo: {error}\n{server.output}", file=sys.stderr)
        return 1
    print(f"Stopped the server again (exit code {code}).")
    print(NEXT)
    return code


def demonstrate(api: Any) -> None:
    """Deploy, wait, invoke twice."""
    runtime = guess_runtime(HELLO)
    print(f"Deploying examples/hello with boto3, as {runtime} ...", flush=True)
    api.create_function(
        FunctionName="hello",
        Runtime=runtime,
        Role="arn:aws:iam::000000000000:role/lambent",
        Handler="app.handler",
        Code={"ZipFile": bundle(HELLO)},
    )
    api.get_waiter("function_active_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})
    for title, name in (("cold", "world"), ("warm", "again")):
        answer = api.invoke(FunctionName="hello", Payload=json.dumps({"name": name}), LogType="Tail")
        body = answer["Payload"].read().decode()
        if answer.get("FunctionError"):
            raise LambentError(f"the function failed: {body}")
        log = base64.b64decode(answer["LogResult"]).decode()
        print(f"\nInvoked it, {title}:\n  {body}")
        print("  " + next(line for line in log.splitlines() if line.startswith("REPORT")))
    print()


if __name__ == "__main__":
    sys.exit(main())
