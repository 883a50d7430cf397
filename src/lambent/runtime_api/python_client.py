"""The Python runtime inside the sandbox: AWS's ``awslambdaric`` over frames instead of HTTP.

This file is seen in the sandbox as ``/var/runtime/lambent_runtime_client.py``. The standard library, ``awslambdaric`` and the two files
beside it (``awslambda.py``, ``python_imports.py``) are all that it may import, and it runs on CPython 3.8 to 3.14. Handler loading, error
payloads, log lines and the invocation loop are AWS's own code (``awslambdaric.bootstrap``); what is ours is

* ``Channel``: the frames of ``runtime_api/frames.py`` over a blocking descriptor. An answer is held back until the loop asks for the
  next event and then leaves in one write with the NEXT frame, so that an invocation costs one read and one write.
* ``FrameClient``: the runtime client that ``bootstrap.run`` drives. The frame's token travels as AWS's "invocation id", which
  ``bootstrap`` hands back with the answer; so an answer carries the token of the event that it belongs to.
* ``CompiledMarshaller``: AWS's marshaller is built on simplejson, whose C part exists for one interpreter version only and is
  otherwise several times slower than the standard library's. Values for which both give the same text go to the standard library;
  everything else, every error among it, goes to AWS's code (contract 03 §7).
* ``preload`` and ``run``: ``preload`` happens once in a zygote, before anything is known of a function; ``run`` happens in the forked child
  and settles all that depends on its environment: search path, time zone, log format.

What ``awslambdaric`` reads from the environment while it is imported (the log format and level) is settled again by running its module
body once more, and only when the function asks for something else than the defaults.

User code shares this process and may do to it what it likes; the node trusts nothing that it hears from here.
"""

from __future__ import annotations

import _random
import atexit
import builtins
import contextlib
import importlib
import json
import logging
import marshal
import os
import random
import site
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from awslambdaric import bootstrap
from awslambdaric.lambda_runtime_client import BaseLambdaRuntimeClient, InvocationRequest, LambdaRuntimeClient
from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller, to_json

if TYPE_CHECKING:
    from lambent.runtime_api import awslambda
    from lambent.runtime_api import python_imports as imports
else:
    try:
        import awslambda
        import lambent_runtime_imports as imports
    except ImportError:  # not in a sandbox
        from lambent.runtime_api import awslambda
        from lambent.runtime_api import python_imports as imports

_HEADER = struct.Struct(">BII")
_INVOKE, _NEXT, _RESPONSE, _ERROR, _INIT_ERROR = 0x01, 0x11, 0x12, 0x13, 0x14
_RESPONSE_START, _CHUNK, _RESPONSE_END = 0x15, 0x16, 0x17
_CHUNK_MOST = 1_048_576
_NEXT_FRAME = _HEADER.pack(_NEXT, 0, 0)
_BUFFER = bytearray(65_536)  # made before the fork: a child dirties only the pages that its events fill
_JOIN_BELOW = 32_768  # bytes; larger answers are not copied into one piece
_XRAY_CAUSE_MAX = 1_048_576
_USUAL_ZONE = ":UTC"  # contract 03 §5
_REHEARSALS = 40  # the interpreter calls code warm after eight runs of it, and settles within a few dozen

PRELOADED = (
    "asyncio",
    "awslambdaric.lambda_literals",
    "base64",
    "boto3",
    "boto3.dynamodb.transform",
    "boto3.dynamodb.types",
    "boto3.s3.inject",
    "boto3.s3.transfer",
    "concurrent.futures.thread",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "gzip",
    "hashlib",
    "hmac",
    "http.client",
    "simplejson.raw_json",
    "snapshot_restore_py",
    "socket",
    "ssl",
    "tempfile",
    "traceback",
    "typing",
    "urllib.request",
    "uuid",
    "zipfile",
)


class Channel:
    """Frames over the blocking end of a stream socket. Ends the process quietly when the node has gone."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, True)
        self._descriptor = descriptor
        self._view = memoryview(_BUFFER)
        self._target = [self._view]
        self._held = 0  # bytes in the buffer that belong to the next frame

    def receive(self) -> tuple[str, bytes]:
        """Wait for an INVOKE frame; give its head and its body."""
        have, self._held = self._held, 0
        if not have:
            try:
                have = os.readv(self._descriptor, self._target)
            except ConnectionResetError:
                have = 0
            if not have:
                os._exit(0)
        while have < _HEADER.size:
            have += self._read([self._view[have:]])
        kind, head_length, body_length = _HEADER.unpack_from(_BUFFER)
        if kind != _INVOKE:
            raise RuntimeError(f"unexpected frame {kind:#x} from the platform")
        start = _HEADER.size + head_length
        end = start + body_length
        if end <= len(_BUFFER):
            while have < end:
                have += self._read([self._view[have:]])
            head, body = str(self._view[_HEADER.size : start], "utf-8"), bytes(self._view[start:end])
            if have > end:
                self._held = have - end
                _BUFFER[: self._held] = _BUFFER[end:have]
            return head, body
        frame = self._receive_large(have, end)
        return str(frame[_HEADER.size : start], "utf-8"), frame[start:]

    def send(self, parts: list[bytes]) -> None:
        """Write all of ``parts``, in one system call where the socket takes them."""
        try:
            if sum(map(len, parts)) < _JOIN_BELOW:
                parts = [b"".join(parts)]
                sent = os.write(self._descriptor, parts[0])
            else:
                sent = os.writev(self._descriptor, parts)
            if sent == len(parts[0]) and len(parts) == 1:
                return
            views = [memoryview(part) for part in parts]
            while True:
                while views and sent >= len(views[0]):
                    sent -= len(views.pop(0))
                if not views:
                    return
                views[0] = views[0][sent:]
                sent = os.writev(self._descriptor, views)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def _receive_large(self, have: int, end: int) -> bytes:
        chunks = [bytes(self._view[:have])]
        while have < end:
            chunk = self._read_some(min(end - have, 1_048_576))
            chunks.append(chunk)
            have += len(chunk)
        return b"".join(chunks)

    def _read(self, target: list[memoryview]) -> int:
        try:
            count = os.readv(self._descriptor, target)
        except ConnectionResetError:
            count = 0
        return count or os._exit(0)

    def _read_some(self, most: int) -> bytes:
        try:
            chunk = os.read(self._descriptor, most)
        except ConnectionResetError:
            chunk = b""
        return chunk or os._exit(0)


class CompiledMarshaller(LambdaMarshaller):  # type: ignore[misc]
    """AWS's marshaller, with the standard library's compiled JSON where it gives the same result.

    ``marshal`` (the one of ``.pyc`` files) refuses everything but exact built-in types, and does so in C; so it is the cheap
    proof that a value holds no named tuple, no subclass with its own habits, no Decimal and no cycle, all of which simplejson treats
    in its own way. What it lets through and JSON does not know (bytes, sets) fails in ``_encode`` and goes to AWS's code as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self._aws_encoder = self.jsonEncoder
        self._encode = json.JSONEncoder(ensure_ascii=self.jsonEncoder.ensure_ascii, allow_nan=True).encode
        self._decode = json.JSONDecoder(parse_constant=_refuse_constant).decode

    def unmarshal_request(self, request: bytes | str, content_type: str | None = "application/json") -> Any:
        if content_type == "application/json":
            try:
                return self._decode(request if isinstance(request, str) else str(request, "utf-8"))
            except (ValueError, TypeError, RecursionError):
                pass
        return super().unmarshal_request(request, content_type)

    @awslambda.unseen
    def marshal_response(self, response: Any) -> tuple[Any, str]:
        if self.jsonEncoder is self._aws_encoder:  # function authors may replace it
            try:
                marshal.dumps(response, 2)
                return self._encode(response), "application/json"
            except (ValueError, TypeError, RecursionError):
                pass
        if isinstance(response, awslambda.GENERATORS) and awslambda.open_stream is not None:
            response = awslambda.drain(response)
        if isinstance(response, awslambda.Streamed):
            return response, response.content_type
        answer: tuple[Any, str] = super().marshal_response(response)
        return answer


def _marshaller() -> CompiledMarshaller:
    """One for this environment: AWS's encoder looks at ``AWS_EXECUTION_ENV``. The usual one is made once, before the fork."""
    name = imports.variable("AWS_EXECUTION_ENV", "")
    if name not in _marshallers:
        _marshallers[name] = CompiledMarshaller()
    return _marshallers[name]


class FrameClient(LambdaRuntimeClient, awslambda.Transport):  # type: ignore[misc]
    """What ``bootstrap.run`` takes for a client of the Runtime API."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(imports.variable("AWS_LAMBDA_RUNTIME_API", ""))
        self._channel = channel
        self._answer: list[bytes] = []
        self._token = self._request_id = ""
        self._stream: awslambda.ResponseStream | None = None

    def wait_next_invocation(self) -> InvocationRequest:
        """Send the answer that is held back, ask for the next event, and wait for it."""
        answer, self._answer = self._answer, []
        answer.append(_NEXT_FRAME)
        self._channel.send(answer)
        head, body = self._channel.receive()
        token, request_id, deadline, arn, trace, tenant, cognito, client_context = head.split("\n", 7)
        self._token, self._request_id = token, request_id
        return InvocationRequest(
            invoke_id=request_id,
            x_amzn_trace_id=trace or None,
            invoked_function_arn=arn,
            deadline_time_in_ms=int(deadline),
            client_context=client_context or None,
            cognito_identity=cognito or None,
            tenant_id=tenant or None,
            content_type="application/json",
            event_body=body,
            invocation_id=token,
        )

    def post_invocation_result(
        self,
        invoke_id: str,
        result_data: Any,
        content_type: str = "application/json",
        invocation_id: str | None = None,
    ) -> None:
        if self._stream is not None and self._end_stream("", b""):
            return
        body = result_data if isinstance(result_data, bytes) else result_data.encode("utf-8")
        kind = content_type if content_type == "application/json" else _line(content_type)
        head = f"{invocation_id or ''}\n{invoke_id}\n{kind}".encode()
        self._answer = [_HEADER.pack(_RESPONSE, len(head), len(body)) + head, body]

    def post_invocation_error(
        self,
        invoke_id: str,
        error_response_data: str,
        xray_fault: str,
        invocation_id: str | None = None,
    ) -> None:
        error_type = _line(json.loads(error_response_data).get("errorType", ""))
        if self._stream is not None and self._end_stream(error_type or "Unhandled", error_response_data.encode()):
            return
        cause = xray_fault if len(xray_fault.encode()) < _XRAY_CAUSE_MAX else ""
        self._hold(_ERROR, "\n".join((invocation_id or "", invoke_id, error_type, cause)), error_response_data.encode())

    def post_init_error(self, error_response_data: dict[str, Any], error_type_override: str | None = None) -> None:
        error_type = _line(error_type_override or error_response_data["errorType"])
        self._channel.send(_frame(_INIT_ERROR, error_type, to_json(error_response_data).encode()))

    def start(self, content_type: str, data: bytes) -> None:
        """The first bytes of a streamed response."""
        start = _frame(_RESPONSE_START, "\n".join((self._token, self._request_id, content_type)), b"")
        self._channel.send([*start, *self._chunks(data)])

    def chunk(self, data: bytes) -> None:
        """The next ones."""
        self._channel.send(self._chunks(data))

    def open_stream(self) -> awslambda.ResponseStream:
        """For this invocation."""
        self._stream = awslambda.ResponseStream(self)
        return self._stream

    def _chunks(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        if len(data) <= _CHUNK_MOST:
            return _frame(_CHUNK, self._token, data)
        pieces = [data[start : start + _CHUNK_MOST] for start in range(0, len(data), _CHUNK_MOST)]
        return [part for piece in pieces for part in _frame(_CHUNK, self._token, piece)]

    def _end_stream(self, error_type: str, body: bytes) -> bool:
        """Close the stream, so that threads which the function left behind write no more; ``False`` if nothing was ever written to it."""
        stream, self._stream = self._stream, None
        assert stream is not None
        stream.end()
        if stream.started:
            self._hold(_RESPONSE_END, "\n".join((self._token, self._request_id, error_type)), body)
        return stream.started

    def _hold(self, kind: int, head: str, body: bytes) -> None:
        self._answer = _frame(kind, head, body)


_marshallers: dict[str, CompiledMarshaller] = {}
_settled_zone: str | None = None  # what ``preload`` has found, if that was called
_bootstrap_code = bootstrap.__loader__.get_code(bootstrap.__name__)
_is_plain = (bootstrap.LogFormat.TEXT.value, "") == (bootstrap._AWS_LAMBDA_LOG_FORMAT, bootstrap._AWS_LAMBDA_LOG_LEVEL)


def preload() -> None:
    """Import what functions commonly import. Called once, in a zygote; what is not installed is left out."""
    before = set(sys.modules)
    for name in PRELOADED:
        # absent, or too new for this interpreter: the function's own import will say so
        with contextlib.suppress(ImportError, TypeError, SyntaxError):
            importlib.import_module(name)
    imports.note_preloaded(before)
    imports.put_sdk_aside()
    if not hasattr(builtins, "exit"):  # an interpreter started with -S
        site.setquit()
        site.setcopyright()
        site.sethelper()
    _settle_streams()
    _settle_zone()
    _rehearse()


def _settle_zone() -> None:
    """The time zone that nearly every function has. A child looks again only where it is to have another."""
    global _settled_zone
    _settled_zone = os.environ["TZ"] = _USUAL_ZONE
    time.tzset()


def _rehearse() -> None:
    """Do what every child will do, so that what it changes in memory is changed before the fork and shared.

    The interpreter rewrites a function's bytecode as it gets warm, in place; each child that does it anew copies the pages. So the steps
    of ``serve`` and the loop over events are gone through a few dozen times with made-up events.
    """
    compiled = os.memfd_create("rehearsal") if hasattr(os, "memfd_create") else -1
    for number in range(_REHEARSALS):
        if compiled >= 0:  # the first one compiles and tells, the others load
            imports.handler_code.attach(-1 if number == 0 else os.dup(compiled), os.dup(compiled) if number == 0 else -1)
        imports.search_path(sys.path)
        _settle_logging()
        original = sys.modules.pop("keyword", None)  # any small module will do for a rehearsal of importing one
        imports.expect_handler("keyword.iskeyword", imports.STDLIB, ["keyword.py"])
        bootstrap._get_handler("keyword.iskeyword")
        if original is not None:
            sys.modules["keyword"] = original
        handler = bootstrap.LambdaLoggerHandler(None)
        handler.setFormatter(logging.Formatter("%(message)s", "%Y"))
        handler.addFilter(bootstrap.LambdaLoggerFilter())
    if compiled >= 0:
        os.close(compiled)
    os.environ["AWS_EXECUTION_ENV"] = "AWS_Lambda_python{}.{}".format(*sys.version_info[:2])
    _rehearse_invocations()
    del os.environ["AWS_EXECUTION_ENV"]


def _rehearse_invocations() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = FrameClient(Channel(theirs.detach()))
        client.marshaller = _marshaller()
        head = b"1\n00000000-0000-4000-8000-000000000000\n4102444800000\narn:aws:lambda:us-east-1:000000000000:function:f\nRoot=1-0-0\n\n\n"
        frame = _HEADER.pack(_INVOKE, len(head), 8) + head + b'{"a": 1}'
        for _ in range(_REHEARSALS):
            ours.sendall(frame)
            request = client.wait_next_invocation()
            bootstrap.update_xray_env_variable(request.x_amzn_trace_id)
            bootstrap.handle_event_request(
                client,
                lambda event, context: {"event": event, "left": context.get_remaining_time_in_millis()},
                request.invoke_id,
                request.event_body,
                request.content_type,
                request.client_context,
                request.cognito_identity,
                request.invoked_function_arn,
                request.deadline_time_in_ms,
                request.tenant_id,
                None,
                request.invocation_id,
            )
            ours.recv(65_536)
        os.close(client._channel._descriptor)
    os.environ.pop("_X_AMZN_TRACE_ID", None)


def run(descriptor: int, handler: str, environment: dict[str, str] | None = None, bytecode: int = -1, learn: int = -1) -> NoReturn:
    """Be the runtime process: load ``handler``, answer events from ``descriptor``, and end this process.

    For a forked child. ``environment``, if given, replaces the process environment. ``bytecode`` and ``learn`` are descriptors of what the
    handler was compiled to and of where to say that (``sandbox/bytecode.py``), or -1. Ends as an interpreter would: exit status of
    ``SystemExit``, 1 after an uncaught exception, with ``atexit`` functions run and non-daemon threads waited for; nothing of the caller's
    stack is unwound.
    """
    status = 1
    try:
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        imports.handler_code.attach(bytecode, learn)
        serve(descriptor, handler)
        status = 0
    except SystemExit as end:
        status = _exit_status(end)
    except BaseException:  # as the interpreter does for its main module
        sys.excepthook(*sys.exc_info())
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def serve(descriptor: int, handler: str) -> None:
    """Settle what the environment decides, then hand over to AWS's loop. Raises what ends the process."""
    channel = Channel(descriptor)
    _settle_process(handler)
    _settle_logging()
    BaseLambdaRuntimeClient.marshaller = _marshaller()
    client = FrameClient(channel)
    awslambda.open_stream = client.open_stream
    bootstrap.run(handler, client)


def _settle_process(handler: str) -> None:
    runtime_dir = _variable("LAMBDA_RUNTIME_DIR", "/var/runtime")
    task_root = _variable("LAMBDA_TASK_ROOT", "/var/task")
    _variable("PYTHONPATH", runtime_dir)
    if imports.variable("TZ", "") != _settled_zone:
        time.tzset()
    _random.Random.seed(random._inst)  # siblings of one zygote must not share their dice
    random._inst.gauss_next = None  # type: ignore[attr-defined]
    threading._main_thread._native_id = threading.get_native_id()  # type: ignore[attr-defined]
    try:
        os.chdir(task_root)
    except OSError as error:
        raise SystemExit(f"cannot enter {task_root}: {error}") from error
    sys.argv[:] = [runtime_dir + "/bootstrap.py"]
    sys.path[:] = imports.search_path(sys.path)
    names = [imports.settle_folder(folder) for folder in sys.path[: sys.path.index(runtime_dir)]]
    imports.expect_handler(handler, sys.path[0], names[0])
    if _settled_zone is None:  # otherwise ``preload`` has seen to it
        _settle_streams()


def _variable(name: str, default: str) -> str:
    """The environment variable, which is there from now on."""
    value = imports.variable(name, "")
    return value or os.environ.setdefault(name, default)


def _settle_streams() -> None:
    for stream, errors in ((sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        if (getattr(stream, "encoding", "utf-8"), getattr(stream, "errors", errors)) != ("utf-8", errors):
            stream.reconfigure(encoding="utf-8", errors=errors)  # type: ignore[union-attr]


def _settle_logging() -> None:
    """Run the body of ``bootstrap`` anew if this environment would have made it define something else."""
    if _is_plain and imports.variable("AWS_LAMBDA_LOG_FORMAT", "Text") == "Text" and imports.variable("AWS_LAMBDA_LOG_LEVEL", "") == "":
        return
    environ = os.environ
    wanted = (
        bootstrap.LogFormat.from_str(environ.get("AWS_LAMBDA_LOG_FORMAT")),
        bootstrap._get_log_level_from_env_var(environ.get("AWS_LAMBDA_LOG_LEVEL")),
    )
    if wanted != (bootstrap._AWS_LAMBDA_LOG_FORMAT, bootstrap._AWS_LAMBDA_LOG_LEVEL):
        exec(_bootstrap_code, bootstrap.__dict__)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _line(text: Any) -> str:
    return " ".join(str(text).split("\n"))


def _frame(kind: int, head: str, body: bytes) -> list[bytes]:
    encoded = head.encode()
    return [_HEADER.pack(kind, len(encoded), len(body)) + encoded, body]


def _exit_status(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    sys.stderr.write(f"{end.code}\n")
    return 1


def main(arguments: list[str]) -> None:
    """``--channel-fd N [--handler H]``: the runtime as a program of its own, for drivers without a zygote and for exec wrappers."""
    options = dict(zip(arguments[::2], arguments[1::2]))  # noqa: B905  (3.10)
    serve(int(options["--channel-fd"]), options.get("--handler") or os.environ["_HANDLER"])


if __name__ == "__main__":
    main(sys.argv[1:])
