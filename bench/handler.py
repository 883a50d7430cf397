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


def fresh(event, context):
    """Imports boto3 and says how often this environment was called and what its round is."""
    global _calls
    import boto3

    _calls += 1
    return {"calls": _calls, "round": os.environ.get("ROUND"), "boto3": boto3.__version__}
