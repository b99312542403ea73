"""The accelerator in Amaranth. Read `interfaces.py` first, then `accelerator.py`, which puts the parts together."""
