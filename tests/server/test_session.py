"""Signing in from a page: what the cookie is, and what a page of another origin cannot do with it."""

import pytest

from tests.server.conftest import Served, served, spec

__all__ = ["served"]

SAME = {"Sec-Fetch-Site": "same-origin"}


def sign_in(served: Served, token: str, **headers: str):
    return served.client.post("/v1/session", json={"token": token}, headers=headers or SAME)


def test_the_cookie_is_for_this_site_and_not_for_scripts(served: Served):
    answer = sign_in(served, served.admin)
    assert answer.json() == {"role": "admin", "expires": None}
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # this client came without TLS
    assert served.client.get("/v1/session").json()["role"] == "admin"


def test_over_tls_the_cookie_is_secure(served: Served):
    answer = served.client.post("https://shoal/v1/session", json={"token": served.admin}, headers=SAME)
    assert "; secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize("token", ["", "shoal_admin_wrong", "enrolment"])
def test_what_is_no_token_of_a_person_signs_nobody_in(served: Served, token: str):
    answer = sign_in(served, served.enrolment if token == "enrolment" else token)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil"}, {}]
)
def test_a_page_of_another_origin_changes_nothing(served: Served, headers: dict[str, str]):
    served.publish(spec())
    sign_in(served, served.admin)
    assert served.client.get("/v1/tasks", headers=headers).status_code == 200  # no script of it can read the answer
    assert served.client.post("/v1/tasks/plain/pause", headers=headers).status_code == 403
    assert served.client.post("/v1/session", json={"token": served.admin}, headers=headers).status_code == 403
    assert served.coordinator.tasks.find("plain").state.paused is None


@pytest.mark.parametrize("headers", [SAME, {"Origin": "http://shoal"}])
def test_a_page_of_this_origin_may_do_what_its_role_may(served: Served, headers: dict[str, str]):
    served.publish(spec())
    sign_in(served, served.admin)
    assert served.client.post("/v1/tasks/plain/pause", headers=headers).status_code == 200
    sign_in(served, served.coordinator.identities.issue("viewer", served.clock()))
    assert served.client.post("/v1/tasks/plain/resume", headers=headers).status_code == 403


def test_a_header_wins_over_the_cookie(served: Served):
    sign_in(served, served.coordinator.identities.issue("viewer", served.clock()))
    assert served.client.get("/v1/session", headers=served.people()).json()["role"] == "admin"


def test_signing_out_forgets_the_cookie_even_of_a_token_that_is_of_no_use(served: Served):
    sign_in(served, served.coordinator.identities.issue("viewer", served.clock(), served.clock() + 5))
    served.clock.advance(10)
    assert served.client.get("/v1/session").status_code == 401
    assert served.client.delete("/v1/session").status_code == 204
    assert not served.client.cookies
