from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from stream_interp.capture.files import read_activation_file
from stream_interp.errors import UsageError
from stream_interp.records.arrays import write_tensors

RNG = np.random.default_rng(5)
IDS = np.array([7, 7, 7, 3, 3, 9], np.int32)
ACTS = RNG.normal(size=(6, 4)).astype(np.float16)


@pytest.fixture
def write(tmp_path):
    def save(bfloat16=frozenset(), **arrays):
        path = tmp_path / "a.safetensors"
        path.write_bytes(write_tensors(arrays, bfloat16=frozenset(bfloat16)))
        return path

    return save


@pytest.mark.parametrize("id_name", ["doc_id", "request_id"])
def test_requests_are_contiguous_runs(write, id_name):
    positions = np.array([0, 1, 2, 0, 1, 5], np.int16)
    mask = np.array([1, 0, 0, 1, 0, 1], np.bool_)
    file = read_activation_file(
        write(acts=ACTS, position=positions, special_mask=mask, group_id=IDS % 4, segment_id=IDS % 2, **{id_name: IDS})
    )
    assert (file.dtype, file.d_in, file.requests, file.tokens) == ("float16", 4, 3, 6)
    requests = list(file.iter_requests())
    assert [r.request_id for r in requests] == ["7", "3", "9"]
    assert [(r.group_key, r.segment) for r in requests] == [("3", "1"), ("3", "1"), ("1", "1")]
    np.testing.assert_array_equal(np.concatenate([r.acts for r in requests]), ACTS)
    np.testing.assert_array_equal(np.concatenate([r.positions for r in requests]), positions)
    np.testing.assert_array_equal(np.concatenate([r.special_mask for r in requests]), mask)
    assert requests[0].positions.dtype == np.int32
    requests[0].acts[:] = 0  # a copy of its own
    np.testing.assert_array_equal(next(file.iter_requests()).acts, ACTS[:3])


def test_a_part_is_a_file_of_its_requests(write):
    acts = np.arange(12, dtype=np.float32).reshape(6, 2)
    file = read_activation_file(write(acts=acts, request_id=np.array([3, 3, 8, 5, 5, 5])))
    part = file.part(1, 3)
    assert (part.requests, part.tokens) == (2, 4)
    assert [(r.request_id, r.acts.tolist()) for r in part.iter_requests()] == [
        (r.request_id, r.acts.tolist()) for r in list(file.iter_requests())[1:]
    ]


def test_without_optional_tensors(write):
    request = next(read_activation_file(write(acts=ACTS.astype(np.float32), doc_id=IDS)).iter_requests())
    assert request.acts.dtype == np.float32
    assert request.positions is None
    assert request.special_mask is None
    assert (request.group_key, request.segment) == ("", "")


def test_bfloat16_comes_as_bits(write):
    bits = (ACTS.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    file = read_activation_file(write(acts=bits, doc_id=IDS, bfloat16=["acts"]))
    assert file.dtype == "bfloat16"
    np.testing.assert_array_equal(np.concatenate([r.acts for r in file.iter_requests()]), bits)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"doc_id": IDS}, "found tensors"),
        ({"acts": ACTS}, "request_id"),
        ({"acts": ACTS[:, 0], "doc_id": IDS}, r"acts F16\[6\]"),
        ({"acts": ACTS[:0], "doc_id": IDS[:0]}, "at least one token"),
        ({"acts": ACTS.astype(np.float64), "doc_id": IDS}, r"acts F64\[6, 4\]"),
        ({"acts": ACTS, "doc_id": IDS[:5]}, r"doc_id I32\[5\] beside 6 tokens"),
        ({"acts": ACTS, "doc_id": IDS.astype(np.float32)}, "doc_id F32"),
        ({"acts": ACTS, "doc_id": IDS, "position": IDS[:2]}, "position"),
        ({"acts": ACTS, "doc_id": IDS, "special_mask": IDS}, "special_mask I32"),
        ({"acts": ACTS, "doc_id": np.array([1, 1, 2, 2, 1, 1])}, r"doc_id 1 comes back in row 4 .* sort the file"),
    ],
)
def test_what_is_wrong_is_said(write, arrays, message):
    with pytest.raises(UsageError, match=message):
        read_activation_file(write(**arrays))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(UsageError, match=r"cannot be read|not a safetensors"):
        read_activation_file(path)
    with pytest.raises(UsageError, match=r"cannot be read|not a safetensors"):
        read_activation_file(tmp_path)
    for junk in (b"", b"not safetensors at all", write_tensors({"acts": ACTS, "doc_id": IDS})[:-3]):
        path.write_bytes(junk)
        with pytest.raises(UsageError, match=r"x\.safetensors: not a safetensors file"):
            read_activation_file(path)


def test_import_loads_neither_torch_nor_kafka():
    code = (
        "import sys; import stream_interp.capture.files, stream_interp.capture; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'confluent_kafka')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
