"""Amazon S3: the operations on buckets.

A bucket's documents are checked by the model, kept, and shown as they came. Versioning has its effect. Nothing comes of the others: objects
are not encrypted, expired, replicated or served as a website, and access is the owning account's alone, whatever a policy says; only
Lambda, for code that stays in a bucket of another account, asks it (``objects/bucket_policy.py``).
"""

from __future__ import annotations

import json
from typing import Any

from lambent.errors import ClientFault
from lambent.objects.buckets import Buckets
from lambent.objects.faults import access_denied, invalid_request
from lambent.objects.records import Bucket
from lambent.services.s3_members import check_tags, owner_of, owner_only
from lambent.wire.call import Call

Params = dict[str, Any]

ENCRYPTION = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]}
PUBLIC_ACCESS = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
POLICY = 20_480
WITHOUT_EFFECT = {
    "encryption of buckets and objects": "nothing is encrypted",
    "policies, public access block, ownership, ACLs": (
        "a bucket is its owning account's alone; only code by reference asks the policy, that of another account's bucket"
    ),
    "lifecycle rules": "nothing expires or moves",
    "CORS rules": "no browser is answered",
    "StorageClass": "all objects are kept alike",
    "checksums CRC32C and CRC64NVME": "given back as they came, unchecked; the others are checked",
}
"""Kept and shown as on AWS, but nothing comes of them. Told on the parity page."""
_OTHER_REGIONS = {"EU": "eu-west-1"}


class BucketOperations:
    """Half of ``S3Service``."""

    _buckets: Buckets

    def _bucket(self, call: Call, params: Params) -> Bucket:
        owner = params.get("ExpectedBucketOwner")
        if owner is not None and owner != call.account:
            raise access_denied()
        return self._buckets.get(params["Bucket"], call.account)

    async def create_bucket(self, call: Call, params: Params) -> dict[str, Any]:
        asked = (params.get("CreateBucketConfiguration") or {}).get("LocationConstraint") or call.region
        if params.get("ObjectLockEnabledForBucket"):
            raise invalid_request("Object Lock is not available here.")
        await self._buckets.create(params["Bucket"], call.account, _OTHER_REGIONS.get(asked, asked))
        return {"Location": f"/{params['Bucket']}"}

    async def head_bucket(self, call: Call, params: Params) -> dict[str, Any]:
        return {"BucketRegion": self._bucket(call, params).region, "AccessPointAlias": False}

    async def list_buckets(self, call: Call, params: Params) -> dict[str, Any]:
        prefix, region, after = params.get("Prefix") or "", params.get("BucketRegion"), params.get("ContinuationToken") or ""
        found = [
            bucket
            for bucket in self._buckets.owned(call.account)
            if bucket.name.startswith(prefix) and region in (None, bucket.region) and bucket.name > after
        ]
        size = params.get("MaxBuckets") or 10_000
        answer: dict[str, Any] = {
            "Buckets": [{"Name": each.name, "CreationDate": each.created, "BucketRegion": each.region} for each in found[:size]],
            "Owner": owner_of(call.account),
        }
        if prefix:
            answer["Prefix"] = prefix
        if len(found) > size:
            answer["ContinuationToken"] = found[size - 1].name
        return answer

    async def delete_bucket(self, call: Call, params: Params) -> dict[str, Any]:
        self._bucket(call, params)
        await self._buckets.delete(params["Bucket"], call.account)
        return {}

    async def get_bucket_location(self, call: Call, params: Params) -> dict[str, Any]:
        region = self._bucket(call, params).region
        return {"LocationConstraint": "" if region == "us-east-1" else region}

    async def get_bucket_versioning(self, call: Call, params: Params) -> dict[str, Any]:
        status = self._bucket(call, params).versioning
        return {"Status": status} if status else {}

    async def put_bucket_versioning(self, call: Call, params: Params) -> dict[str, Any]:
        self._bucket(call, params)
        status = params["VersioningConfiguration"].get("Status")
        if status not in ("Enabled", "Suspended"):
            raise ClientFault("IllegalVersioningConfigurationException", 400, "The Versioning element must be specified")
        if params["VersioningConfiguration"].get("MFADelete") == "Enabled":
            raise invalid_request("MFA Delete is not available here.")
        await self._buckets.set_versioning(params["Bucket"], call.account, status)
        return {}

    # -- documents ------------------------------------------------------------------------------------------------------------------------

    def _document(self, call: Call, params: Params, kind: str, code: str, text: str) -> Any:
        found = self._bucket(call, params).configuration.get(kind)
        if found is None:
            raise ClientFault(code, 404, text, {"BucketName": params["Bucket"]})
        return found

    async def _keep(self, call: Call, params: Params, kind: str, document: Any) -> dict[str, Any]:
        self._bucket(call, params)
        await self._buckets.configure(params["Bucket"], call.account, kind, document)
        return {}

    async def get_bucket_encryption(self, call: Call, params: Params) -> dict[str, Any]:
        return {"ServerSideEncryptionConfiguration": self._bucket(call, params).configuration.get("encryption", ENCRYPTION)}

    async def put_bucket_encryption(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "encryption", params["ServerSideEncryptionConfiguration"])

    async def delete_bucket_encryption(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "encryption", None)

    async def get_public_access_block(self, call: Call, params: Params) -> dict[str, Any]:
        text = "The public access block configuration was not found"
        found = self._document(call, params, "publicAccessBlock", "NoSuchPublicAccessBlockConfiguration", text)
        return {"PublicAccessBlockConfiguration": found or None}

    async def put_public_access_block(self, call: Call, params: Params) -> dict[str, Any]:
        given = params["PublicAccessBlockConfiguration"]
        return await self._keep(call, params, "publicAccessBlock", {name: bool(given.get(name)) for name in PUBLIC_ACCESS})

    async def delete_public_access_block(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "publicAccessBlock", None)

    async def get_bucket_policy(self, call: Call, params: Params) -> dict[str, Any]:
        return {"Policy": self._document(call, params, "policy", "NoSuchBucketPolicy", "The bucket policy does not exist")}

    async def put_bucket_policy(self, call: Call, params: Params) -> dict[str, Any]:
        try:
            document = json.loads(params["Policy"])
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or "Statement" not in document:
            raise ClientFault("MalformedPolicy", 400, "Policies must be valid JSON and the first byte must be '{'")
        if len(params["Policy"].encode()) > POLICY:
            raise ClientFault("PolicyTooLarge", 400, "The policy exceeds the maximum allowed document size.")
        return await self._keep(call, params, "policy", params["Policy"])

    async def delete_bucket_policy(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "policy", None)

    async def get_bucket_policy_status(self, call: Call, params: Params) -> dict[str, Any]:
        self._document(call, params, "policy", "NoSuchBucketPolicy", "The bucket policy does not exist")
        return {"PolicyStatus": {"IsPublic": False}}

    async def get_bucket_tagging(self, call: Call, params: Params) -> dict[str, Any]:
        return {"TagSet": self._document(call, params, "tagging", "NoSuchTagSet", "The TagSet does not exist")}

    async def put_bucket_tagging(self, call: Call, params: Params) -> dict[str, Any]:
        tags = params["Tagging"]["TagSet"]
        check_tags({tag["Key"]: tag["Value"] for tag in tags}, len(tags), 50)
        return await self._keep(call, params, "tagging", tags)

    async def delete_bucket_tagging(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "tagging", None)

    async def get_bucket_lifecycle_configuration(self, call: Call, params: Params) -> dict[str, Any]:
        text = "The lifecycle configuration does not exist"
        return {"Rules": self._document(call, params, "lifecycle", "NoSuchLifecycleConfiguration", text)}

    async def put_bucket_lifecycle_configuration(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "lifecycle", (params.get("LifecycleConfiguration") or {}).get("Rules", []))

    async def delete_bucket_lifecycle(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "lifecycle", None)

    async def get_bucket_cors(self, call: Call, params: Params) -> dict[str, Any]:
        text = "The CORS configuration does not exist"
        return {"CORSRules": self._document(call, params, "cors", "NoSuchCORSConfiguration", text)}

    async def put_bucket_cors(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "cors", params["CORSConfiguration"]["CORSRules"])

    async def delete_bucket_cors(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "cors", None)

    async def get_bucket_ownership_controls(self, call: Call, params: Params) -> dict[str, Any]:
        default = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        controls = self._bucket(call, params).configuration.get("ownership", default)
        if not controls["Rules"]:  # deleted; a bucket that never had any has the default
            raise ClientFault("OwnershipControlsNotFoundError", 404, "The bucket ownership controls were not found")
        return {"OwnershipControls": controls}

    async def put_bucket_ownership_controls(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "ownership", params["OwnershipControls"])

    async def delete_bucket_ownership_controls(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._keep(call, params, "ownership", {"Rules": []})

    async def get_bucket_acl(self, call: Call, params: Params) -> dict[str, Any]:
        self._bucket(call, params)
        return owner_only(call.account)
