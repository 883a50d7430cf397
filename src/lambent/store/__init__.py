"""Durable state: four small capabilities (``contract.py``) and the drivers that give them."""
