"""The local stack of this project and its demo: `python -m local up`, `python -m local demo`."""
