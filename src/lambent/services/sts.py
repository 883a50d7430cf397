"""AWS STS, as far as it is answered: who am I."""

from __future__ import annotations

from typing import Any

from lambent.wire.call import Call


class StsService:
    """Operation name -> method."""

    async def get_caller_identity(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        """Account, ARN and UserId of the caller. A role session's UserId ends in the session's name, as at AWS."""
        del params
        kind, _, session = call.principal.rpartition("/")
        user_id = f"{call.access_key}:{session}" if ":assumed-role/" in kind else call.access_key
        if call.principal.endswith(":root"):
            user_id = call.account
        return {"Account": call.account, "UserId": user_id, "Arn": call.principal}
