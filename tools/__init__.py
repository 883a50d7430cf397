"""What the make targets run. Each module is started as ``python -m tools.<name>`` from the top of the repository."""
