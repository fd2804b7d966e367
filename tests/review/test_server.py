"""The page of a review: only for this machine, only with its token, only images of the audit, and by keyboard."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from finetune import UsageError
from finetune.review import server
from finetune.review.decisions import Review
from tests.browser import is_too_wide, needs_browser, open_page
from tests.cli.calling import command, environment
from tests.clocks import LONGEST
from tests.review.test_decisions import audit, audited, corrections, find  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.testclient import TestClient

TOKEN = "secret"
pytest.importorskip("starlette", reason="the extra web is not installed")


@pytest.fixture
def review(audit: Path) -> Review:  # noqa: F811
    return Review(audit)


@pytest.fixture
def client(review: Review) -> Iterator[TestClient]:
    from starlette.testclient import TestClient

    with TestClient(server.build_application(review, TOKEN), base_url="http://127.0.0.1:1234") as made:
        yield made


def test_state_decide_undo(client: TestClient, review: Review) -> None:
    state = client.get(f"/{TOKEN}/state").json()
    assert state["classes"] == ["blue", "green", "red"]
    path = find(review, "moved.jpg")
    found = client.post(f"/{TOKEN}/decide", json={"path": path, "action": "relabel", "label": "blue"})
    assert found.status_code == 200
    assert found.json()["decided"] == 1
    assert corrections(review.folder) == {"moved.jpg": ("relabel", "blue")}
    assert client.post(f"/{TOKEN}/undo", json={}).json()["undone"] == path
    assert corrections(review.folder) == {}


def test_the_page_and_its_headers(client: TestClient) -> None:
    for path in ("", "review.js", "review.css", "state", "images/0"):
        answer = client.get(f"/{TOKEN}/{path}")
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/{TOKEN}/images/0").headers["content-type"] == "image/jpeg"


def test_other_tokens_hosts_and_methods_are_refused(client: TestClient) -> None:
    for path in ("/wrong/", "/wrong/state", "/wrong/images/0", "/", f"/{TOKEN}", f"/{TOKEN}/../../etc/passwd"):
        assert client.get(path, follow_redirects=False).status_code in (307, 404), path
    assert client.get("/é/state").status_code == 404
    assert client.get(f"/{TOKEN}/state", headers={"Host": "evil.example"}).status_code == 400
    assert client.get(f"/{TOKEN}/state", headers={"Host": "127.0.0.1.evil.example"}).status_code == 400
    assert client.get(f"/{TOKEN}/decide").status_code == 405
    assert client.post(f"/{TOKEN}/undo", json={}, headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("number", ["999", "-1", "0.5", "a", "..%2f..%2fetc%2fpasswd"])
def test_only_images_of_the_audit_are_sent(client: TestClient, number: str) -> None:
    assert client.get(f"/{TOKEN}/images/{number}").status_code == 404


def test_a_photo_that_is_gone(client: TestClient, review: Review) -> None:
    review.images[0] = "/nowhere/photo.jpg"
    assert client.get(f"/{TOKEN}/images/0").status_code == 404


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b'{"path": 3, "action": null}', "application/json"),
        (b"{}", "text/plain"),
        (b"path=a&action=exclude", "application/x-www-form-urlencoded"),
        (b"x" * 20_000, "application/json"),
        (b"\xff\xfe", "application/json"),
    ],
)
def test_bodies_that_are_refused(client: TestClient, review: Review, content: bytes, kind: str) -> None:
    answer = client.post(f"/{TOKEN}/decide", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert review.decided == {}


def test_a_full_disk_is_reported_to_the_page(
    client: TestClient, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune import ResourceError

    def refuse(*_: object) -> None:
        raise ResourceError("no space left")

    monkeypatch.setattr("finetune.files.atomic.write_text", refuse)
    body = {"path": find(review, "copy.jpg"), "action": "exclude"}
    answer = client.post(f"/{TOKEN}/decide", json=body)
    assert (answer.status_code, answer.json()) == (507, {"error": "no space left"})


def test_a_port_in_use(review: Review) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} cannot be used .*; choose another one with --port"):
            server.serve_review(review, port, lambda address: None, lambda: None)


@pytest.fixture
def address(audit: Path, repo: Path) -> Iterator[str]:  # noqa: F811
    """Return the address of a review in a process of its own, which Ctrl-C ends."""
    process = subprocess.Popen(
        command("review", audit, "--json"),
        env=environment(repo),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        found = next(match for line in process.stderr if (match := re.search(r"http://\S+", line)))
        yield found[0]
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=LONGEST)
        assert process.returncode == 0
        assert json.loads(out.splitlines()[-1])["decided"] == 2
    finally:
        process.kill()
        process.wait()


@needs_browser
def test_a_person_decides_by_keyboard_and_mouse(address: str, audit: Path) -> None:  # noqa: F811
    expect = pytest.importorskip("playwright.sync_api").expect
    with open_page() as (page, seen):
        page.goto(address)
        page.wait_for_selector("#label:not(:empty)")
        page.select_option("#kind", "wrong label")
        page.select_option("#class", "blue")
        expect(page.locator("#path")).to_have_text(re.compile("moved.jpg"))
        page.keyboard.press("r")
        expect(page.locator("#progress")).to_have_text(re.compile(r"^1 of"))
        page.keyboard.press("u")
        expect(page.locator("#progress")).to_have_text(re.compile(r"^0 of"))
        page.fill("#other", "green")
        page.keyboard.press("Enter")
        expect(page.locator("#progress")).to_have_text(re.compile(r"^1 of"))
        assert corrections(audit) == {"moved.jpg": ("relabel", "green")}
        page.select_option("#class", "")
        page.select_option("#kind", "contradiction")
        expect(page.locator("#reasons")).to_have_text(re.compile("contradiction"))
        page.click("#exclude")
        expect(page.locator("#progress")).to_have_text(re.compile(r"^2 of"))
        assert len(corrections(audit)) == 2
        page.set_viewport_size({"width": 390, "height": 800})
        assert not is_too_wide(page)
        page.wait_for_load_state("networkidle")
    assert seen.messages == []
    assert seen.hosts == {"127.0.0.1"}


def test_the_extra_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match=r"needs uvicorn; run: pip install 'mindspore-finetune\[web\]'"):
        server.check_installed()


def test_static_files_are_packaged() -> None:
    from importlib.resources import files

    names = {each.name for each in files("finetune.review").joinpath("static").iterdir()}
    assert names == set(server.STATIC)
