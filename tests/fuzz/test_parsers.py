"""Whatever a file contains, reading it gives a result or a StudioError: never another exception, never a hang."""

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, attempt

_TOKENS = [
    b"\0",
    b"\xff" * 4,
    b"{",
    b"}",
    b"[" * 5000,
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"-Infinity",
    b"9" * 25,
    b"9" * 5000,
    b"0.5",
    b"[]",
    b"{}",
    b'""',
    b"\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"../",
    b"/",
    b"\\",
    b"C:",
    b"PK\x03\x04",
    b"a" * 300,
    b"'''",
    b"=",
    b"[settings]",
    b"2020-01-01",
    b",",
    b": ",
]
_place = st.integers(0, 2**16)
_edit = st.one_of(
    st.tuples(st.just("set"), _place, st.integers(0, 255)),
    st.tuples(st.just("insert"), _place, st.sampled_from(_TOKENS)),
    st.tuples(st.just("replace"), _place, st.sampled_from(_TOKENS)),
    st.tuples(st.just("drop"), _place, st.integers(1, 60)),
    st.tuples(st.just("repeat"), _place, st.integers(1, 60)),
    st.tuples(st.just("cut"), _place, st.none()),
)
"""One change to a valid file."""
_edits = st.lists(_edit, min_size=1, max_size=6)


@cache
def seeds(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


def edited(data: bytes, edits: list) -> bytes:
    for kind, place, what in edits:
        at = place % (len(data) + 1)
        match kind:
            case "set":
                data = data[:at] + bytes([what]) + data[at + 1 :]
            case "insert":
                data = data[:at] + what + data[at:]
            case "replace":
                data = data[:at] + what + data[at + len(what) :]
            case "drop":
                data = data[:at] + data[at + what :]
            case "repeat":
                data = data[:at] + data[at : at + what] * 2 + data[at + what :]
            case "cut":
                data = data[:at]
    return data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "place"


@pytest.mark.fault(23, 27, 33)
@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused(name, place):
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 9), _edits)
    def tried(seed, edits):
        attempt(name, edited(seeds(name)[seed % len(seeds(name))], edits), place)

    tried()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_read_or_refused(name, place):
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=200)
        | st.sampled_from(
            [
                b"[" * 100_000,
                b"{" * 100_000,
                b'{"a":' * 100_000,
                b"a=" + b"[" * 100_000,
                b"9" * 100_000,
                b"\n" * 100_000,
                b'"' * 99_999,
            ]
        )
    )
    def tried(data):
        attempt(name, data, place)

    tried()


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name, place):
    """Damage to a file that was never valid would show nothing."""
    for data in seeds(name):
        place.mkdir(parents=True, exist_ok=True)
        attempt(name, data, place)
