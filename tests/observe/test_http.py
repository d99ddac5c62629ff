from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stream_interp.errors import UsageError
from stream_interp.observe import patience
from stream_interp.observe.board import Board, Reading, Snapshot
from stream_interp.observe.http import serving
from tests.deploy.scraper import get


@contextmanager
def served(*boards: Board) -> Iterator[str]:
    said = list[str]()
    with serving("127.0.0.1:0", boards, said.append):
        found = re.search(r"http://[^/]+", said[0])
        assert found is not None
        yield found[0]


def test_ready_says_what_is_missing_by_process() -> None:
    encode, detect = Board("encode", ["sae_loaded", "assignment_received"]), Board("detect", ["state_restored"])
    with served(encode, detect) as url:
        status, body = get(f"{url}/readyz")
        assert status == 503
        assert body == (
            b'{"ready":false,"missing":{"encode":["sae_loaded","assignment_received"],"detect":["state_restored"]}}'
        )
        encode.turn(Snapshot)
        detect.turn(lambda: Snapshot(missing=("state_restored",)))
        assert get(f"{url}/readyz") == (503, b'{"ready":false,"missing":{"detect":["state_restored"]}}')
        detect.snapshot = Snapshot()
        assert get(f"{url}/readyz") == (200, b'{"ready":true,"missing":{}}')


def test_live_until_a_loop_is_stuck() -> None:
    encode, detect = Board("encode"), Board("detect")
    with served(encode, detect) as url:
        assert get(f"{url}/livez")[0] == 200
        encode.turn(Snapshot)
        detect.turned_s = time.monotonic() - 500
        status, body = get(f"{url}/livez")
        assert status == 503
        assert b'"detect":500.' in body
        assert b"encode" not in body


def test_metrics_are_those_of_now_and_nothing_else_is_served() -> None:
    board = Board("encode")
    with served(board) as url:
        assert b"stream_interp_records_total" not in get(f"{url}/metrics")[1]
        board.turn(lambda: Snapshot(readings=(Reading("records", 5),)))
        assert b'stream_interp_records_total{process="encode"} 5.0' in get(f"{url}/metrics")[1]
        assert get(f"{url}/")[0] == 404


def test_the_port_is_free_again_afterwards() -> None:
    with served(Board("encode")) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(UsageError, match=r"in use; choose another port"), serving(f"127.0.0.1:{port}", [], print):
            pass
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("address", ["9464", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":9464"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"), serving(address, [], print):
        pass


def test_without_an_address_nothing_is_served() -> None:
    said = list[str]()
    with serving(None, [Board("encode")], said.append):
        assert said == []


def test_half_requests_lock_nobody_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "REQUEST_S", 0.5)
    with served(Board("encode")) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        halves = [socket.create_connection(address) for _ in range(64)]
        try:
            for half in halves:
                half.sendall(b"GET /livez HTTP/1.1\r\nHost: ")
            time.sleep(1.5)
            assert get(f"{url}/livez")[0] == 200
        finally:
            for half in halves:
                half.close()
