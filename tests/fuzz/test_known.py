"""Inputs that fuzzing has found."""

import pytest

from tests.fuzz.targets import TARGETS, attempt

DEEP = b"[" * 100_000


@pytest.mark.parametrize(("name", "data"), [
    ("preset", b"a=" + DEEP), ("settings", b"a=" + DEEP), ("settings", b"rank = " + b"9" * 5000), ("worker", DEEP),
    ("saved", DEEP), ("saved", b"[1]"), ("run", DEEP), ("model", DEEP), ("peft-config", DEEP),
    ("texts", b'{"x": {"ink": 1e999}}'), ("run", b'{"run": "ink", "step": 1e999, "goes_on": true}'),
    ("worker", b'{"pid": 1e999, "started": 0}'),
    ("index", TARGETS["index"].seeds()[0].replace(b"sd1", b"sd0")),
])  # fmt: skip
def test_it_is_read_or_refused(name, data, tmp_path):
    attempt(name, data, tmp_path / "place")
