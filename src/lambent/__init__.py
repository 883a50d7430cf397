"""Lambent: AWS Lambda that you own. ``ARCHITECTURE.md`` tours the house file by file."""

__version__ = "0.1.0"
