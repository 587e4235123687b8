"""Every route of the application, called by everybody: the table of roles is what holds."""

import re
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from shoal.server.app import ROUTES
from shoal.server.roles import CALLS, PEOPLE
from tests.server.conftest import Served, served

__all__ = ["served"]

EVERY = sorted(
    f"{method} {route.path}" for route in ROUTES if isinstance(route, APIRoute) for method in route.methods or ()
)
LEAVES = "DELETE /v1/devices/me"
FOR_PAGES = {"GET /v1/events", "POST /v1/session", "DELETE /v1/session"}  # tests/server/test_session.py, test_live.py


def test_the_table_names_every_route_and_no_other():
    assert sorted(CALLS.keys() - {"GET /healthz", "GET /openapi.json"}) == EVERY


@pytest.mark.parametrize("caller", [*sorted(PEOPLE), "enrolment", "device", "nobody"])
def test_who_may_not_call_is_refused_and_nobody_else(served: Served, caller: str):
    headers = _headers(served, caller)
    for call in (call for call in EVERY if call != LEAVES and call not in FOR_PAGES):
        method, path = call.split(" ")
        path = re.sub(r"\{number\}", "1", re.sub(r"\{(?!number)\w+\}", "absent", path))
        status = served.client.request(method, path, headers=headers).status_code
        allowed = CALLS[call]
        if "everyone" in allowed:
            assert status == 200, call
        elif "newcomer" not in allowed and call != "GET /metrics":
            assert (status in (401, 403)) == (caller not in allowed), (call, status)


def _headers(served: Served, caller: str) -> dict[str, str]:
    match caller:
        case "device":
            return served.device("ann")
        case "nobody":
            return {}
        case "enrolment":
            return served.people(served.enrolment)
        case _:
            return served.people(served.coordinator.identities.issue(caller, served.clock()))


def test_the_page_shows_the_table():
    page = Path("docs/security.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z]+ /[^`]+)` \| ([^|]+?) \|$", page, re.MULTILINE))
    assert rows == {call: ", ".join(sorted(callers)) for call, callers in CALLS.items()}
