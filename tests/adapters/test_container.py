"""Hostile and damaged files: each is refused with its reason, quickly, and before any tensor is looked at (faults 23 to
28 and 33).
"""

from __future__ import annotations

import json
import pickle
import struct
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from lora_studio.adapters import header, read, summary
from lora_studio.adapters.container import MAX_HEADER, peek
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import Q, drawn

GOOD = {f"{Q}.lora_A.weight": drawn("d", (4, 6)), f"{Q}.lora_B.weight": drawn("u", (5, 4))}


def file(tmp_path, table, data: bytes = b"", name: str = "x.safetensors"):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    path = tmp_path / name
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def refused(path, reason: str):
    for reader in (header, read):
        with pytest.raises(AdapterError, match=reason) as caught:
            reader(path)
        assert caught.value.do


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


@pytest.mark.fault(23)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused_unread_whatever_their_name(tmp_path, protocol):
    for name in ("a.safetensors", "a.ckpt", "a.pt", "a.bin"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Bomb(), protocol))
        refused(path, "pickle")
    torch.save(GOOD, tmp_path / "zip.safetensors")
    refused(tmp_path / "zip.safetensors", "pickle")
    save_file(GOOD, tmp_path / "honest.ckpt")
    refused(tmp_path / "honest.ckpt", "pickle")


@pytest.mark.fault(24)
@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 101 * 10**6, MAX_HEADER + 1])
def test_an_absurd_header_length_is_refused_without_reading_it(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    refused(path, "header would be")


@pytest.mark.fault(25)
def test_many_empty_tensors_are_refused_in_a_moment(tmp_path):
    """The library takes 13 s over 800,000 of them."""
    table = (
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(200_000)) + b"}"
    )
    path = file(tmp_path, table)
    begin = time.process_time()
    refused(path, "50,000 tensors")
    assert time.process_time() - begin < 2


@pytest.mark.fault(26)
def test_repeated_names_are_refused(tmp_path):
    """The library loads the last of two; which one a reader takes decides what the picture is."""
    one = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    refused(file(tmp_path, ("{" + one + "," + one + "}").encode(), bytes(4)), "'a' appears twice in it")


@pytest.mark.fault(26, 27)
@pytest.mark.parametrize(
    ("table", "data", "reason"),
    [
        ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12, "overlaps"),
        ({"a": entry([2], 0, 8), "b": entry([2], 12, 20)}, 20, "gap"),
        ({"a": entry([2], 4, 12)}, 12, "gap"),
        ({"a": entry([2], 0, 8)}, 4, "incomplete download: 4 of 8 bytes are missing"),
        ({"a": entry([2], 0, 8)}, 12, "4 bytes follow"),
        ({"a": entry([3], 0, 8)}, 8, "cannot fill 8 bytes"),
        ({"a": entry([2**40, 2**40], 0, 8)}, 8, "cannot fill"),
        ({"a": entry([-2, -1], 0, 8)}, 8, "malformed"),
        ({"a": entry([True, 2], 0, 8)}, 8, "malformed"),
        ({"a": entry([2.0], 0, 8)}, 8, "malformed"),
        ({"a": entry([2], 8, 0)}, 8, "cannot fill"),
        ({"a": entry([2], 0, 8, "F4")}, 8, "unknown number format"),
        ({"a": {"dtype": "F32"}}, 0, "malformed"),
        ({"a": 3}, 0, "malformed"),
        ({"__metadata__": {"a": 3}}, 0, "metadata"),
        ([1, 2], 0, "not a table"),
        (b"{" * 5000, 0, "not valid JSON"),
        (b"\xff\xfe{}", 0, "not valid JSON"),
        (b'{"a": NaN}', 0, "not valid JSON"),
    ],
)
def test_lying_tables_are_refused(tmp_path, table, data, reason):
    refused(file(tmp_path, table, bytes(data)), reason)


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    "name", [f"{Q}.lora_A.weight", f"{Q}.alpha", f"{Q}.hada_w1_a", f"{Q}.lokr_t2", f"{Q}.lora_magnitude_vector"]
)
@pytest.mark.parametrize(
    "shape",
    [
        [],
        [0],
        [4],
        [4, 6],
        [4, 6, 3, 3],
        [2, 2, 2, 2, 2, 2],
        ["4", 6],
        [2**70, 1],
        [-4, 6],
        [4.5, 6],
        None,
        "46",
        {"4": 6},
    ],
)
def test_a_header_of_any_shapes_gives_a_card_or_an_adapter_error(tmp_path, name, shape):
    """One odd file in the library must not take the whole page down."""
    path = file(tmp_path, {name: entry(shape, 0, 8), f"{Q}.lora_B.weight": entry([1], 8, 12)}, bytes(12))
    try:
        assert summary(path).modules == 1
    except AdapterError as error:
        assert error.do


@pytest.mark.fault(27)
def test_cut_and_empty_files_are_named_as_incomplete(tmp_path):
    whole = save(GOOD)
    for cut in (0, 5):
        (tmp_path / "x.safetensors").write_bytes(whole[:cut])
        refused(tmp_path / "x.safetensors", "too few")
    for cut in (40, len(whole) - 1):
        (tmp_path / "x.safetensors").write_bytes(whole[:cut])
        refused(tmp_path / "x.safetensors", "incomplete download")
    refused(tmp_path / "nowhere.safetensors", "cannot be read")


@pytest.mark.fault(28)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nan_and_infinity_are_refused_with_the_name_of_the_tensor(tmp_path, value, dtype):
    """diffusers loads them silently and draws black squares."""
    bad = {name: tensor.to(dtype) for name, tensor in GOOD.items()}
    bad[f"{Q}.lora_B.weight"][2, 1] = value
    save_file(bad, tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match="to_q.lora_B.weight contains NaN or infinity"):
        read(tmp_path / "x.safetensors")


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 3))
def test_no_changed_byte_makes_anything_but_an_adapter_error(place, byte, cut, tmp_path_factory):
    data = bytearray(save(GOOD, {"k": "v"}))
    data[place % len(data)] = byte
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    path.write_bytes(bytes(data[: len(data) - cut]))
    for reader in (read, header, peek, summary):
        try:
            reader(path)
        except AdapterError:
            pass


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b'{"x\\ud800": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}}', r"x\\ud800"),
        (b'{"__metadata__": {"ss_x\\udfff": "y"}}', r"ss_x\\udfff"),
        (b'{"__metadata__": {"modelspec.title": "\\ud83d"}}', r"\\ud83d"),
        (b'{"__metadata__": {"modelspec.title": "\xed\xa0\x80"}}', r"\\ud800"),
    ],
    ids=["name", "key", "text", "raw"],
)
def test_lone_surrogates_are_named_by_every_reader(tmp_path, head, named):
    """JSON's escapes allow them, and neither a file nor a page can hold them."""
    path = file(tmp_path, head, b"\0" * (b"U8" in head))
    refused(path, f"'{named}' in its header is not valid Unicode")
    with pytest.raises(AdapterError, match="not valid Unicode"):
        summary(path)


def test_pairs_of_surrogates_are_letters(tmp_path):
    path = file(tmp_path, b'{"__metadata__": {"modelspec.title": "\\ud83c\\udfa8"}}')
    assert header(path).metadata == {"modelspec.title": "🎨"}
