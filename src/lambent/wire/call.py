"""Who calls, and under which name: what every operation gets beside its parsed parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Call:
    """One authenticated call of one operation."""

    request_id: str  # a UUID; the function sees the same one
    account: str  # 12 digits
    region: str
    access_key: str
    principal: str  # ARN of the caller
    base_url: str  # "http://host:port" as the caller addressed us, for URLs in answers
    source_ip: str = ""
    trace: str = ""  # X-Amzn-Trace-Id as received, or ""
    content_type: str = ""  # as received, or ""
