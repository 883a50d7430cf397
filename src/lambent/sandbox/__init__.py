"""Sandboxes: where functions run. ``driver.py`` is the contract; each driver is one file, or one folder, beside it."""
