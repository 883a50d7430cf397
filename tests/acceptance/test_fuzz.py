"""The control plane under requests made up from the models: no 5xx, no error that is not modelled, no answer beside the model.

A sample runs here; ``make fuzz`` runs 20,000 (``LAMBENT_FUZZ``), and its last figures stand in SPECIFICATION.md.
"""

from __future__ import annotations

import os

from model_fuzz import Fuzzer

from lambent.services.table import implemented

REQUESTS = int(os.environ.get("LAMBENT_FUZZ", "600"))
SEED = int(os.environ.get("LAMBENT_FUZZ_SEED", "1"))


def test_requests_made_up_from_the_models_meet_no_surprise(server):
    server.client("sqs").create_queue(QueueName="q0")
    fuzzer = Fuzzer(server.endpoint, implemented()["lambda"], SEED)
    fuzzer.run(REQUESTS)
    print(f"\n{REQUESTS} requests, seed {SEED}: {dict(fuzzer.outcomes.most_common())}")
    assert fuzzer.complaints == [], "\n".join(fuzzer.complaints[:20])
    assert fuzzer.outcomes["success"] > REQUESTS / 20
    assert server.health()["status"] == "ok"
    assert "Traceback" not in server.output
