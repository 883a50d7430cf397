"""The event as it comes in: is it JSON, and small enough?

AWS refuses what is not JSON before anything runs (contract 02 §1), so every payload is read once to the end. For small ones that is
microseconds. A large one (6 MB can take a tenth of a second) is read in another thread, by a decoder that builds nothing and calls
back into Python for every object and number: the calls are what lets the interpreter switch threads in between, so the loop goes on
serving.

Numbers stay text (AWS puts no limit on their digits), ``NaN`` and its like are refused, and so is nesting that the decoder cannot
follow.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from lambent.errors import ClientFault

LARGE = 65_536


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"Non-standard token '{name}'")


def _forget(_: Any) -> None:
    return None


_SMALL = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse_constant)
_BIG = json.JSONDecoder(parse_float=_forget, parse_int=_forget, parse_constant=_refuse_constant, object_pairs_hook=_forget)


def check_size(payload: bytes, limit: int, invocation_type: str = "RequestResponse") -> None:
    """413 ``RequestTooLargeException`` over ``limit`` bytes."""
    if len(payload) > limit:
        raise ClientFault(
            "RequestTooLargeException",
            413,
            f"{len(payload)} byte payload is too large for the {invocation_type} invocation type (limit {limit} bytes)",
        )


async def check(payload: bytes) -> None:
    """``check_json``, in another thread if it may take long."""
    if len(payload) <= LARGE:
        check_json(payload)
    else:
        await asyncio.get_running_loop().run_in_executor(None, check_json, payload)


def check_json(payload: bytes) -> None:
    """400 ``InvalidRequestContentException`` with AWS's prefix if ``payload`` is not a JSON document in UTF-8. Safe in any thread."""
    decoder = _SMALL if len(payload) <= LARGE else _BIG
    try:
        text = payload.decode()
        try:
            if decoder.scan_once(text, 0)[1] == len(text):  # type: ignore[attr-defined]
                return  # the compiled part of the decoder has seen it all: there is no white space around
        except StopIteration:
            pass
        decoder.decode(text)
        return
    except UnicodeDecodeError as error:
        detail = f"Invalid UTF-8 byte 0x{payload[error.start]:02x}\n at [byte: {error.start}]"
    except json.JSONDecodeError as error:
        detail = f"{error.msg}\n at [line: {error.lineno}, column: {error.colno}]"
    except ValueError as error:
        detail = str(error)
    except RecursionError:
        detail = "Document nesting depth exceeds the maximum allowed"
    prefix = "Could not parse request body into json: Could not parse payload into json: "
    raise ClientFault("InvalidRequestContentException", 400, prefix + detail)
