"""What comes of an operation where it is not all that comes of it on AWS: for ``docs/parity.md``, and for whoever reads the code.

An operation of ``table.py`` that has no row here does what AWS's does, as far as this machine can. A row tells in a few words what is
effective and what is not. Members of requests that differ have a table of their own (``control/function_rules.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

_STORED = "stored, validated, returned; nothing more"
_POLICY = "stored and returned as on AWS; callers are not held to it yet"
_URL = "stored and returned; the URL is not served yet"
_PROVIDER = "states and limits as on AWS; no instances, functions run on this machine"

EFFECTS: Mapping[tuple[str, str], str] = {
    ("lambda", "AddLayerVersionPermission"): _POLICY,
    ("lambda", "AddPermission"): _POLICY,
    ("lambda", "CreateCapacityProvider"): _PROVIDER,
    ("lambda", "CreateCodeSigningConfig"): "`Warn` and `Enforce` act; signatures cannot be verified, so no zip counts as signed",
    ("lambda", "CreateEventSourceMapping"): "queues are polled; mappings of other sources are kept, with their states, and not polled",
    ("lambda", "CreateFunction"): "yes, but for the members above",
    ("lambda", "CreateFunctionUrlConfig"): _URL,
    ("lambda", "DeleteResourcePolicy"): _POLICY,
    ("lambda", "PutFunctionCodeSigningConfig"): "`Warn` and `Enforce` act; signatures cannot be verified, so no zip counts as signed",
    (
        "lambda",
        "PutFunctionScalingConfig",
    ): "0 and 0 deactivates; the least number is kept ahead, but not the default of 3; the greatest bounds what runs at once",
    ("lambda", "PutResourcePolicy"): _POLICY,
    ("lambda", "PutRuntimeManagementConfig"): f"{_STORED}: a runtime is what the machine has",
    ("lambda", "RemoveLayerVersionPermission"): _POLICY,
    ("lambda", "RemovePermission"): _POLICY,
    ("lambda", "UpdateCapacityProvider"): _PROVIDER,
    ("lambda", "UpdateCodeSigningConfig"): "`Warn` and `Enforce` act; signatures cannot be verified, so no zip counts as signed",
    ("lambda", "UpdateFunctionCode"): "yes, but for the members above",
    ("lambda", "UpdateFunctionConfiguration"): "yes, but for the members above",
    ("lambda", "UpdateFunctionUrlConfig"): _URL,
    ("s3", "PutBucketCors"): _STORED,
    ("s3", "PutBucketEncryption"): _STORED,
    ("s3", "PutBucketLifecycleConfiguration"): _STORED,
    ("s3", "PutBucketOwnershipControls"): _STORED,
    ("s3", "PutBucketPolicy"): _STORED,
    ("s3", "PutPublicAccessBlock"): _STORED,
}
