"""Heartbeats that arrive whole, which have no task (service/ingest/direct.py), beside those in pieces, which do."""

import json
import re
import time
from typing import Any

import pytest

from tests.e2e import test_raw_http
from tests.e2e.conftest import ServiceProcess
from tests.e2e.test_raw_http import ONE, Answer, Wire, assert_prompt, post, request
from tests.helpers.support import heartbeat

service = test_raw_http.service
SECONDS = 20
PER_TOKEN = 16  # requests with a server's token at the same time, as service/access/identity.py


def body(server_id: str, **more: Any) -> bytes:
    return json.dumps(heartbeat(server_id, eth0=(1, 2)) | more).encode()


def answers(wire: Wire, *requests: bytes) -> list[Answer]:
    """All are sent before the first answer is read."""
    wire.send(b"".join(requests))
    found = [wire.answer() for _ in requests]
    assert all(found)
    return [one for one in found if one]


def in_pieces(wire: Wire, data: bytes) -> Answer:
    wire.send(data[:-5])
    time.sleep(0.05)
    (answer,) = answers(wire, data[-5:])
    return answer


def of_token(service: ServiceProcess, server_id: str) -> tuple[str, str]:
    """A new token of a server, and its id."""
    asked = json.dumps({"kind": "server", "server_id": server_id}).encode()
    with Wire(service) as wire:
        (made,) = answers(
            wire,
            request("/api/v1/tokens", "Content-Type: application/json", f"Content-Length: {len(asked)}", body=asked),
        )
    assert made.status == 201, made
    found = json.loads(made.body)
    return found["token"], found["id"]


def by(token: str, data: bytes) -> bytes:
    return request(ONE, f"Content-Length: {len(data)}", body=data, key=token)


@pytest.mark.parametrize(
    ("status", "data", "headers"),
    [
        (200, body("direct"), ()),
        (400, b"{", ()),
        (415, body("direct"), ("Content-Type: text/html",)),
        (422, body(""), ()),
        (422, body("direct", timestamp="2099-01-01T00:00:00Z"), ()),
    ],
)
def test_a_heartbeat_is_answered_alike_in_one_piece_and_in_two(
    service: ServiceProcess, status: int, data: bytes, headers: tuple[str, ...]
) -> None:
    asked = request(ONE, f"Content-Length: {len(data)}", *headers, body=data)
    assert_prompt(service, 1)  # the key is known

    with Wire(service) as wire:
        (whole,) = answers(wire, asked)
        pieces = in_pieces(wire, asked)

    assert (whole.status, pieces.status) == (status, status)
    assert whole.headers.keys() == pieces.headers.keys()
    assert whole.headers["content-type"] == pieces.headers["content-type"]
    assert int(whole.headers["content-length"]) == len(whole.body)
    # The service's clock, which an error may name, goes on between the two.
    bodies = [json.loads(re.sub(rb"clock, [-:0-9TZ]+", b"clock", one.body)) for one in (whole, pieces)]
    for one in bodies:
        one.pop("server_time", None)
        one.pop("server_registered", None)
    assert bodies[0] == bodies[1]


def test_pipelined_heartbeats_are_answered_in_order(service: ServiceProcess) -> None:
    assert_prompt(service, 1)

    with Wire(service) as wire:
        found = answers(wire, post(body("in-a-row")), post(b"{"), post(body("in-a-row")), post(b"[]"))

        assert [one.status for one in found] == [200, 400, 200, 422]
        assert [json.loads(one.body).get("server_registered") for one in found] == [True, None, False, None]


def test_a_heartbeat_that_ends_its_connection_is_answered_first(service: ServiceProcess) -> None:
    assert_prompt(service, 1)

    with Wire(service) as wire:
        data = body("last")
        (found,) = answers(wire, request(ONE, "Connection: close", f"Content-Length: {len(data)}", body=data))

        assert (found.status, found.headers["connection"]) == (200, "close")
        assert wire.has_ended()


def test_a_client_that_has_gone_leaves_the_answers_of_others_alone(service: ServiceProcess) -> None:
    assert_prompt(service, 1)

    for number in range(30):
        wire = Wire(service)
        wire.send(post(body(f"gone-{number}")))
        wire.reset() if number % 2 else wire.socket.close()

    assert_prompt(service)


def test_a_servers_token_is_checked_for_each_heartbeat(service: ServiceProcess) -> None:
    token, token_id = of_token(service, "own")
    with Wire(service) as wire:
        own, others, known = answers(wire, by(token, body("own")), by(token, body("another")), by(token, body("own")))
        assert (own.status, others.status, known.status) == (200, 403, 200)
        (whole,) = answers(wire, by(token, body("another")))
        assert (whole.status, whole.problem["code"]) == (403, "forbidden")

        (removed,) = answers(wire, request(f"/api/v1/tokens/{token_id}", method="DELETE"))
        assert removed.status in (200, 204)
        (refused,) = answers(wire, by(token, body("own")))

        assert (refused.status, refused.problem["code"]) == (401, "unauthorized")


def test_heartbeats_in_one_piece_count_among_the_requests_of_their_token(service: ServiceProcess) -> None:
    token, _ = of_token(service, "busy")
    asked = by(token, body("busy"))
    with Wire(service) as wire:
        answers(wire, asked)
    wires = [Wire(service) for _ in range(PER_TOKEN)]

    for one in wires:  # in progress until their bodies are there
        one.send(asked[:-5])
    with Wire(service) as wire:
        deadline = time.monotonic() + SECONDS
        refused = answers(wire, asked)[0]
        while refused.status == 200 and time.monotonic() < deadline:  # until all of them have begun
            refused = answers(wire, asked)[0]
    for one in wires:
        one.send(asked[-5:])
        found = one.answer()
        assert found is not None
        assert found.status == 200
        one.socket.close()
    with Wire(service) as wire:
        (taken,) = answers(wire, asked)

    assert (refused.status, taken.status) == (429, 200)
