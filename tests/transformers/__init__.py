"""Tests of the backend `transformers`, on a tiny model with random weights. They need the extra: `scripts/test.py --extra transformers`."""
