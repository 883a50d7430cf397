"""``ReportBatchItemFailures``: every answer that a function may give (contract 04 §3)."""

from __future__ import annotations

import json

import pytest

from lambent.sources.partial_response import Malformed, failed_items

BATCH = {"m1", "m2", "m3"}


@pytest.mark.parametrize(
    "answer",
    [b"", b" \n", b"null", b'""', b"{}", b"[]", b'{"batchItemFailures": []}', b'{"batchItemFailures": null}', b'{"statusCode": 200}'],
)
def test_answers_that_mean_success(answer):
    assert failed_items(answer, BATCH) == frozenset()


def test_the_named_records_failed():
    answer = {"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m3", "more": 1}, {"itemIdentifier": "m1"}]}
    assert failed_items(json.dumps(answer).encode(), BATCH) == {"m1", "m3"}


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b'{"batchItemFailures"',
        b'"done"',
        b"5",
        b"true",
        b'["m1"]',
        b'{"batchItemFailures": "m1"}',
        b'{"batchItemFailures": {"itemIdentifier": "m1"}}',
        b'{"batchItemFailures": ["m1"]}',
        b'{"batchItemFailures": [{"itemIdentifier": ""}]}',
        b'{"batchItemFailures": [{"itemIdentifier": null}]}',
        b'{"batchItemFailures": [{"itemIdentifier": 1}]}',
        b'{"batchItemFailures": [{"messageId": "m1"}]}',
        b'{"batchItemFailures": [{}]}',
        b'{"batchItemFailures": [null]}',
        b'{"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "unknown"}]}',
        b'{"batchItemFailures": ' + b"[" * 100_000,
        b"\xff",
    ],
)
def test_malformed_answers_fail_the_whole_batch(answer):
    with pytest.raises(Malformed):
        failed_items(answer, BATCH)
