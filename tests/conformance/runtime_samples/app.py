"""The sample of the Python family: what every sample does, by the word ``do`` of the event."""

import json
import os
import signal
import time

ENV = json.loads(os.environ.get("SHOWN", "[]"))
count = 0

if os.environ.get("FAIL_INIT"):
    raise ValueError("closed today")


def handler(event, context):
    global count
    count += 1
    do = event.get("do")
    if do == "count":
        return count
    if do == "fail":
        raise ValueError("oh dear")
    if do == "exit":
        os._exit(event["code"])
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "sleep":
        time.sleep(60)
    if do == "memory":
        hoard = []
        while True:
            hoard.append(b"x" * 10_000_000)
    if do == "log":
        for word in ("one", "two", "three"):
            print("line " + word)
    if do == "context":
        client = context.client_context
        return {
            "id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "left": context.get_remaining_time_in_millis(),
            "name": context.function_name,
            "version": context.function_version,
            "memory": int(context.memory_limit_in_mb),
            "group": context.log_group_name,
            "stream": context.log_stream_name,
            "client": client.custom if client else None,
            "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        }
    if do == "env":
        return {name: os.environ.get(name) for name in ENV}
    if do == "layer":
        import layered

        with open("/opt/data.txt") as file:
            return [file.read(), layered.WORD]
    if do == "keep":
        with open("/tmp/kept", "w") as file:
            file.write("kept")
    if do == "kept":
        return os.path.exists("/tmp/kept")
    return event
