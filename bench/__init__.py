"""Benchmarks: what the issue of this platform's speed is settled with.

    make bench                            everything, as a table
    python -m bench warm cold --json      two families, as JSON
    python -m bench --quick               fewer rounds, for a look in passing

Machines are noisy and differ, so a figure counts only beside a baseline that was measured in the same run, in turns with it: a bare
uvicorn application that answers the same bytes, ``python -c pass``, ``python -c "import boto3"``. Both sides get the same client. Each
family of measurements is one module with ``measure(bench) -> list[Row]``.
"""
