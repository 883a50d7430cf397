"""The functions that are measured; this file is deployed as it is."""

import json
import os
import time

ANSWER = '{"statusCode": 200, "body": "hello"}'
_ANSWER = json.loads(ANSWER)
_calls = 0


def hello(event, context):
    """Answers at once, or after ``event["sleep"]`` seconds."""
    if event.get("sleep"):
        time.sleep(event["sleep"])
    return _ANSWER


def stream(event, context):
    """Writes when it writes, ``event["chunks"]`` times, or ``event["bulk"]`` bytes at once."""
    for left in range(event.get("bulk", 0), 0, -65_536):
        yield b"x" * min(left, 65_536)
    for _ in range(event.get("chunks", 0)):
        yield f"at {time.monotonic():.9f}\n"
        time.sleep(event.get("pause", 0))


def fresh(event, context):
    """Imports boto3 and says how often this environment was called and what its round is."""
    global _calls
    import boto3

    _calls += 1
    return {"calls": _calls, "round": os.environ.get("ROUND"), "boto3": boto3.__version__}


_delays = []


def delays(event, context):
    """Notes how long ago ``event["sent"]`` was (wall time); told once, to a call without it."""
    now = time.time()
    if "sent" in event:
        _delays.append(now - event["sent"])
        return None
    told, _delays[:] = list(_delays), []
    return told


def delays_of_messages(event, context):
    """``delays`` for the records of a queue."""
    now = time.time()
    if "Records" in event:
        _delays.extend(now - json.loads(record["body"])["sent"] for record in event["Records"])
        return None
    told, _delays[:] = list(_delays), []
    return told
