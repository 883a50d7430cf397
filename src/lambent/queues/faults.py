"""SQS's refusals: the code of the JSON protocol, and with it the older one, which SDKs of the query protocol and AWS's header know."""

from __future__ import annotations

from lambent.errors import ClientFault

_OLD = "AWS.SimpleQueueService."


def fault(code: str, message: str, old: str = "", status: int = 400) -> ClientFault:
    """``old`` is the code of the query protocol where it differs; it travels in ``x-amzn-query-error``."""
    return ClientFault(code, status, message, {"__query_code__": old or code})


def no_such_queue() -> ClientFault:
    return fault("QueueDoesNotExist", "The specified queue does not exist.", _OLD + "NonExistentQueue")


def invalid_value(message: str) -> ClientFault:
    """A parameter that is out of its range or of the wrong form."""
    return fault("InvalidParameterValue", message)


def missing(message: str) -> ClientFault:
    return fault("MissingParameter", message)


def invalid_attribute(message: str) -> ClientFault:
    return fault("InvalidAttributeValue", message)


def unknown_attribute(name: str) -> ClientFault:
    return fault("InvalidAttributeName", f"Unknown Attribute {name}.")


def bad_receipt(handle: str) -> ClientFault:
    return fault("ReceiptHandleIsInvalid", f'The input receipt handle "{handle}" is not a valid receipt handle.')


def not_in_flight(message_id: str = "") -> ClientFault:
    reason = "The message referred to is not in flight." if not message_id else "Message is not available for visibility timeout change."
    return fault(
        "MessageNotInflight", f"Value {message_id} for parameter ReceiptHandle is invalid. Reason: {reason}", _OLD + "MessageNotInflight"
    )


def empty_batch(name: str) -> ClientFault:
    return fault("EmptyBatchRequest", f"There should be at least one {name} in the request.", _OLD + "EmptyBatchRequest")


def too_many_entries(found: int) -> ClientFault:
    text = f"Maximum number of entries per request are 10. You have sent {found}."
    return fault("TooManyEntriesInBatchRequest", text, _OLD + "TooManyEntriesInBatchRequest")


def same_ids(entry: str) -> ClientFault:
    return fault("BatchEntryIdsNotDistinct", f"Id {entry} repeated.", _OLD + "BatchEntryIdsNotDistinct")


def bad_entry_id() -> ClientFault:
    text = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long."
    return fault("InvalidBatchEntryId", text, _OLD + "InvalidBatchEntryId")


def batch_too_long(limit: int, found: int) -> ClientFault:
    text = f"Batch requests cannot be longer than {limit} bytes. You have sent {found} bytes."
    return fault("BatchRequestTooLong", text, _OLD + "BatchRequestTooLong")


def unsupported(message: str) -> ClientFault:
    return fault("UnsupportedOperation", message, _OLD + "UnsupportedOperation")


def not_found(message: str) -> ClientFault:
    return fault("ResourceNotFoundException", message, "ResourceNotFoundException", 404)


def name_taken(attribute: str) -> ClientFault:
    text = f"A queue already exists with the same name and a different value for attribute {attribute}"
    return fault("QueueNameExists", text, "QueueAlreadyExists")


def purge_in_progress(name: str) -> ClientFault:
    text = f"Only one PurgeQueue operation on {name} is allowed every 60 seconds."
    return fault("PurgeQueueInProgress", text, _OLD + "PurgeQueueInProgress", 403)
