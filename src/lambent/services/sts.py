"""AWS STS, as far as it is answered: who am I, and who may I be."""

from __future__ import annotations

import re
import secrets
from typing import Any

from lambent.clock import Clock, SystemClock
from lambent.errors import ClientFault, NotImplementedFault
from lambent.iam.sessions import Sessions
from lambent.wire.call import Call

HOUR_S = 3_600
_ROLE = re.compile(r"arn:aws[a-zA-Z-]*:iam::(\d{12}):role/(?:[\x21-\x7e]*/)?([\w+=,.@-]{1,64})")


class StsService:
    """Operation name -> method."""

    def __init__(self, sessions: Sessions | None = None, clock: Clock | None = None) -> None:
        self._sessions = sessions or Sessions(secrets.token_bytes(32))
        self._clock = clock or SystemClock()

    async def get_caller_identity(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        """Account, ARN and UserId of the caller. A role session's UserId ends in the session's name, as at AWS."""
        del params
        kind, _, session = call.principal.rpartition("/")
        user_id = f"{call.access_key}:{session}" if ":assumed-role/" in kind else call.access_key
        if call.principal.endswith(":root"):
            user_id = call.account
        return {"Account": call.account, "UserId": user_id, "Arn": call.principal}

    async def assume_role(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        """Credentials of any role of the caller's account. What would narrow them is refused, for nothing would hold them to it."""
        match = _ROLE.fullmatch(params["RoleArn"])
        if match is None:
            raise ClientFault("ValidationError", 400, f"{params['RoleArn']} is invalid")
        if params.get("Policy") or params.get("PolicyArns"):
            raise NotImplementedFault("sts", "AssumeRole with a session policy")
        account, role = match.groups()
        if account != call.account:
            raise ClientFault(
                "AccessDenied", 403, f"User: {call.principal} is not authorized to perform: sts:AssumeRole on resource: {params['RoleArn']}"
            )
        expires = int(self._clock.now()) + (params.get("DurationSeconds") or HOUR_S)
        session, secret_key, token = self._sessions.issue(account, role, params["RoleSessionName"], expires)
        return {
            "Credentials": {
                "AccessKeyId": session.access_key,
                "SecretAccessKey": secret_key,
                "SessionToken": token,
                "Expiration": float(expires),
            },
            "AssumedRoleUser": {"AssumedRoleId": f"{session.access_key}:{session.name}", "Arn": session.principal},
        }
