"""SQS as it was spoken before it spoke JSON, and as some clients still speak it: the query protocol, over the same model.

botocore's model of today keeps the shapes and has lost the old names, so they stand here: what a list or map is called in a form
(``AttributeName.1``, ``Attribute.1.Name``) and in an answer's XML. A map's entries are named; lists and maps are flattened already.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, Final

from lambent.wire.models import Service, compile_service, read_model

_NAMESPACE: Final = "http://queue.amazonaws.com/doc/2012-11-05/"

_NAMES: Final = {
    "AWSAccountIds": "AWSAccountId",
    "Actions": "ActionName",
    "AttributeNames": "AttributeName",
    "Attributes": "Attribute",
    "MessageAttributeNames": "MessageAttributeName",
    "MessageAttributes": "MessageAttribute",
    "MessageSystemAttributeNames": "MessageSystemAttributeName",
    "MessageSystemAttributes": "MessageSystemAttribute",
    "Messages": "Message",
    "QueueUrls": "QueueUrl",
    "Results": "ListMessageMoveTasksResultEntry",
    "TagKeys": "TagKey",
    "Tags": "Tag",
    "queueUrls": "QueueUrl",
    "tags": "Tag",
}
_BY_ITEM: Final = {"Entries", "Successful", "Failed"}
"""Members that are called what the items of their list are called."""

_ENTRIES: Final = {
    "QueueAttributeMap": ("Name", "Value"),
    "MessageBodyAttributeMap": ("Name", "Value"),
    "MessageBodySystemAttributeMap": ("Name", "Value"),
    "MessageSystemAttributeMap": ("Name", "Value"),
    "TagMap": ("Key", "Value"),
}


@functools.cache
def query_service() -> Service:
    """SQS's operations, in the query protocol. The same object each time."""
    return compile_service("sqs", _in_query_terms(copy.deepcopy(read_model("sqs"))))


def _in_query_terms(model: dict[str, Any]) -> dict[str, Any]:
    model["metadata"].update(protocol="query", xmlNamespace=_NAMESPACE)
    shapes = model["shapes"]
    for shape in shapes.values():
        for name, member in shape.get("members", {}).items():
            if name in _NAMES:
                member["locationName"] = _NAMES[name]
            elif name in _BY_ITEM:
                member["locationName"] = shapes[member["shape"]]["member"]["shape"]
    for name, (key, value) in _ENTRIES.items():
        shapes[name]["key"]["locationName"], shapes[name]["value"]["locationName"] = key, value
    for name, operation in model["operations"].items():
        if "output" in operation:
            operation["output"]["resultWrapper"] = f"{name}Result"
    return model
