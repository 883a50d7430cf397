"""From the name that a caller wrote to the one function that is meant (contract 01 §2).

Every operation of the control plane and every invocation goes through ``resolve``, so that the refusals (another Region, another account,
two qualifiers that disagree) are worded in one place.
"""

from __future__ import annotations

from lambent.arn import LATEST, FunctionArn, parse_function
from lambent.errors import ClientFault, invalid_parameter, not_found
from lambent.wire.call import Call

NAME_LENGTH = 64


def resolve(call: Call, action: str, text: str, qualifier: str | None = None) -> FunctionArn:
    """The function named by ``text``, with the qualifier of either place. ``action`` is for the refusal, e.g. ``GetFunction``.

    Raises ``ClientFault``: IPV for qualifiers that disagree, RNF for another Region or a text that names nothing, 403 for another account.
    """
    arn = parse_function(text, call.region, call.account)
    if arn is None:
        raise not_found(f"Function not found: arn:aws:lambda:{call.region}:{call.account}:function:{text}")
    if qualifier is not None:
        if arn.qualifier is not None and arn.qualifier != qualifier:
            raise invalid_parameter("The derived qualifier from the function name does not match the specified qualifier.")
        arn = arn.qualified(qualifier)
    require_own(call, action, arn)
    return arn


def resolve_function(call: Call, action: str, text: str) -> FunctionArn:
    """Like ``resolve`` for operations on the function as a whole: gives the unqualified ARN, and finds nothing but ``$LATEST``."""
    arn = resolve(call, action, text)
    require_latest(arn)
    return arn.unqualified


def require_own(call: Call, action: str, arn: FunctionArn) -> None:
    """Refuse what lies in another Region or account."""
    if arn.region != call.region:
        raise not_found(f"Functions from '{arn.region}' are not reachable in this region ('{call.region}')")
    if arn.account != call.account:
        raise denied(call, action, str(arn))


def denied(call: Call, action: str, resource: str) -> ClientFault:
    """403 for what belongs to another account."""
    return ClientFault(
        "AccessDeniedException",
        403,
        f"User: {call.principal} is not authorized to perform: lambda:{action} on resource: {resource} "
        f"because no resource-based policy allows the lambda:{action} action",
    )


def require_latest(arn: FunctionArn) -> None:
    """Refuse every qualifier but ``$LATEST``, for operations on the function as a whole."""
    if arn.qualifier not in (None, LATEST):
        raise missing(arn)


def missing(arn: FunctionArn) -> ClientFault:
    return not_found(f"Function not found: {arn}")


def new_name(call: Call, text: str) -> FunctionArn:
    """The function that CreateFunction is to make; its name may not be qualified nor longer than 64 characters."""
    arn = parse_function(text, call.region, call.account)
    constraint = ""
    if arn is None or arn.qualifier is not None:
        constraint = "Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+"
    elif len(arn.name) > NAME_LENGTH:
        constraint = f"Member must have length less than or equal to {NAME_LENGTH}"
    if arn is None or constraint:
        raise invalid_parameter(
            f"1 validation error detected: Value '{text}' at 'functionName' failed to satisfy constraint: {constraint}",
        )
    require_own(call, "CreateFunction", arn)
    return arn
