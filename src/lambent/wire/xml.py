"""The query protocol's answers: a result or a fault as AWS's XML.

Characters that XML 1.0 cannot carry at all (control characters that a message may quote) become U+FFFD, so that a fault is always readable.
"""

from __future__ import annotations

import html
import re
from typing import Any

from lambent.wire.models import Operation, Shape
from lambent.wire.values import write_text

_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def answer_xml(operation: Operation, result: dict[str, Any], request_id: str) -> bytes:
    """``<OpResponse><OpResult>…</OpResult><ResponseMetadata>…``."""
    name = operation.name
    inner = _members(operation.output, result) if operation.output is not None else ""
    wrapper = operation.result_wrapper
    body = f"<{wrapper}>{inner}</{wrapper}>" if wrapper else inner
    text = (
        f'{HEAD}<{name}Response xmlns="{operation.model.namespace}">{body}'
        f"<ResponseMetadata>{element('RequestId', request_id)}</ResponseMetadata></{name}Response>"
    )
    return text.encode()


def fault_xml(namespace: str, code: str, message: str, sender: bool, request_id: str) -> bytes:
    """``<ErrorResponse>`` as AWS's query services give it."""
    error = element("Type", "Sender" if sender else "Receiver") + element("Code", code) + element("Message", message)
    return f'{HEAD}<ErrorResponse xmlns="{namespace}"><Error>{error}</Error>{element("RequestId", request_id)}</ErrorResponse>'.encode()


def element(name: str, text: str) -> str:
    return f"<{name}>{html.escape(_IMPOSSIBLE.sub(chr(0xFFFD), text), quote=False)}</{name}>"


def _members(shape: Shape, result: dict[str, Any]) -> str:
    pieces = []
    for name, member in shape.members.items():
        value = result.get(name)
        if value is not None:
            pieces.append(_value(member.shape, member.wire, value))
    return "".join(pieces)


def _value(shape: Shape, name: str, value: Any) -> str:
    if shape.kind == "structure":
        return f"<{name}>{_members(shape, value)}</{name}>"
    if shape.item is not None:
        item = shape.item
        if shape.flattened:
            return "".join(_value(item, name, each) for each in value)
        return f"<{name}>{''.join(_value(item, 'member', each) for each in value)}</{name}>"
    if shape.key is not None and shape.value is not None:
        key, inner = shape.key, shape.value
        tag = name if shape.flattened else "entry"
        entries = (f"<{tag}>{_value(key, shape.key_name, each)}{_value(inner, shape.value_name, of)}</{tag}>" for each, of in value.items())
        if shape.flattened:
            return "".join(entries)
        return f"<{name}>{''.join(entries)}</{name}>"
    return element(name, write_text(shape, value, "iso8601"))
