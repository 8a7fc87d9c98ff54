"""The console as a person meets it, in a real Chromium: from an empty home to a chat, a crash, keys, and a restart."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from kolosal.routes.console.pages import FIRST_VIEW
from tests.console.conftest import MARKUP, Served

pytestmark = [pytest.mark.model, pytest.mark.timeout(240), pytest.mark.xdist_group("console")]

VIEWS = ("engines", "models", "chat", "activity", "metrics", "logs", "keys")
MAX_FIRST_VIEW_BYTES = 100_000

OpenPage = Callable[..., Any]
Picture = Callable[[Any, str], None]


def ready(page: Any) -> Any:
    """The page, once its view is there and the daemon answers."""
    page.locator(".view h1").wait_for()
    page.get_by_text("Connected", exact=True).wait_for(state="attached")
    return page


def engine_card(page: Any, name: str) -> Any:
    return page.get_by_role("article", name=name, exact=True)


def ask(page: Any, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


TAUGHT = {
    "engines": "No engine yet",
    "models": "No model yet",
    "chat": "No engine to talk to",
    "activity": "No request yet",
    "metrics": "Tokens a second",
    "logs": "INFO request.finished",
    "keys": "No key is needed yet",
}
"""What each view says where there is nothing."""


def test_empty_views_teach(open_page: OpenPage, empty_home: Served) -> None:
    page = ready(open_page(empty_home))
    for view, words in TAUGHT.items():
        page.goto(f"{empty_home.url}/ui#/{view}")
        page.get_by_text(words).first.wait_for()


def test_a_session_from_an_empty_home_to_a_chat(
    open_page: OpenPage, empty_home: Served, picture: Picture, smollm2: Path
) -> None:
    models = empty_home.folder / "models"
    models.mkdir()
    for name in ("smollm2.gguf", "smollm2-short.gguf"):
        shutil.copy(smollm2, models / name)
    page = ready(open_page(empty_home, width=1080))
    page.get_by_text("No engine yet").wait_for()
    picture(page, "empty")

    page.get_by_role("button", name="Add an engine").click()
    page.get_by_label("Model file").fill("/no/such.gguf")
    page.locator(".estimate.bad").wait_for()
    page.get_by_label("Model file").fill("models/smollm2.gguf")
    page.locator(".estimate.good", has_text="It fits").wait_for()
    assert page.get_by_label("Name").input_value() == "smollm2"
    picture(page, "add")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    page.locator(".pill[data-state=loading]").wait_for()
    page.locator(".pill[data-state=ready]").wait_for()
    page.get_by_role("button", name="Pin smollm2").click()
    page.get_by_text("Pinned: it stays in memory.").wait_for()

    page.get_by_role("button", name="Add an engine").click()
    page.get_by_label("Model file").fill("models/smollm2-short.gguf")
    page.get_by_text("How it is loaded").click()
    page.get_by_label("Context").fill("1024")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    page.locator(".pill[data-state=ready]").nth(1).wait_for()

    with empty_home.http() as http:
        own = {"model_path": "models/smollm2-short.gguf", "n_ctx": 1024, "n_batch": 96, "n_keep": 5}
        assert http.put("/engines/smollm2-short", json={**own, "idle_ttl_s": 77}).status_code == 200
    page.get_by_role("button", name="Replace smollm2-short").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("How it is loaded").click()
    assert dialog.get_by_label("Context").input_value() == "1024"
    dialog.get_by_label("Context").fill("2048")
    dialog.get_by_role("button", name="Replace").click()
    engine_card(page, "smollm2-short").get_by_text("2,048").wait_for()
    with empty_home.http() as http:
        asked = http.get("/engines/smollm2-short").json()["asked"]
    assert asked["loading_parameters"] == {"n_ctx": 2048, "n_batch": 96, "n_keep": 5}
    assert asked["idle_ttl_s"] == 77

    page.get_by_role("link", name="Chat with smollm2", exact=True).click()
    page.get_by_label("Second engine").select_option("smollm2-short")
    page.get_by_role("button", name="Settings …").click()
    page.get_by_label("Length at most").fill("60")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("System prompt").fill("You are a helpful geographer.")
    page.get_by_role("button", name="Use these").click()
    ask(page, "Name three rivers of Europe as a list.")
    page.locator(".foot", has_text="tokens/s").nth(1).wait_for()

    for dark in (False, True):
        page.emulate_media(color_scheme="dark" if dark else "light")
        for view in VIEWS:
            page.goto(f"{empty_home.url}/ui#/{view}")
            page.locator(f".view.{view}").wait_for()
            if view == "models":
                page.get_by_text("Q4_1").nth(1).wait_for()
            if view == "chat":
                page.get_by_label("Conversations").select_option(
                    label="Name three rivers of Europe as a list."
                )
                page.locator(".markdown li").nth(1).wait_for()
            picture(page, f"{view}-dark" if dark else view)


def test_an_answer_is_streamed_and_can_be_stopped(open_page: OpenPage, served: Served) -> None:
    page = ready(open_page(served, "chat?engine=smollm2"))
    ask(page, "Write a long story about a fox.")
    page.locator(".answer", has_text=re.compile(".{60}", re.DOTALL)).wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator(".foot", has_text="stopped").wait_for()
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="New").click()
    page.get_by_role("button", name="Settings …").click()
    page.get_by_label("Length at most").fill("20")
    page.get_by_role("button", name="Use these").click()
    ask(page, "Hello!")
    page.locator(".foot", has_text=re.compile(r"tokens/s.*first token.*cached")).wait_for()
    page.get_by_role("button", name="Edit").click()
    assert page.get_by_label("Message").input_value() == "Hello!"


@pytest.mark.parametrize("view", VIEWS)
def test_names_are_never_markup(open_page: OpenPage, served: Served, view: str) -> None:
    if view == "activity":
        with served.http() as http:
            http.post("/v1/completions", json={"model": MARKUP, "prompt": "Hi", "max_tokens": 2})
    page = ready(open_page(served, view))
    if view in ("engines", "models", "activity"):
        page.get_by_text(MARKUP, exact=True).first.wait_for()
    assert page.locator("img[src=x]").count() == 0
    assert "caught" not in page.title()


def test_a_models_text_is_never_markup(served: Served) -> None:
    hostile = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) ![p](https://evil.example/p.png)\n\n**b** | `<i>`"
    with served.http() as http:
        html = http.post("/v1/markdown", json={"text": hostile}).json()["html"]
    assert not re.search(r"<(?!/?(p|strong|code|a)\b)|href=\"javascript", html)
    assert "<strong>b</strong>" in html


def test_requests_are_listed_with_all_about_them(
    open_page: OpenPage, served: Served, picture: Picture
) -> None:
    page = ready(open_page(served, "activity"))
    with served.http() as http:
        http.post("/v1/completions", json={"model": "smollm2", "prompt": "Hi", "max_tokens": 2})
        http.post("/api/chat", json={"model": "nobody", "messages": [{"role": "user", "content": "Hi"}]})
    row = page.locator("tr[data-outcome=failed]", has_text="nobody")
    row.wait_for()
    row.get_by_role("button").click()
    page.get_by_role("dialog").get_by_text("model 'nobody' not found").wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Filter").fill("completed smollm2")
    assert page.locator("tr[data-outcome=failed]").count() == 0
    assert page.locator("tr[data-outcome=completed]").count() > 0


def test_ten_thousand_requests_are_a_few_rows_of_the_page(open_page: OpenPage, served: Served) -> None:
    with served.http() as http:
        http.post("/v1/completions", json={"model": "smollm2", "prompt": "Hi", "max_tokens": 2})
        found = http.get("/v1/activity?limit=1").json()
    row = found["requests"][0]
    rows = [{**row, "id": f"x-{number}", "request_id": f"r-{number}"} for number in range(10_000)]
    answer = {
        "requests": rows,
        "running": [],
        "capturing": True,
        "total": 10_000,
        "last_id": found["last_id"],
    }
    page = ready(open_page(served, "logs"))
    page.route("**/v1/activity?limit=10000", lambda route: route.fulfill(json=answer))
    page.goto(f"{served.url}/ui#/activity")
    page.get_by_text("10,000 requests", exact=True).wait_for()
    page.get_by_text("Bodies are captured").wait_for()
    assert page.locator("tbody tr").count() < 100
    page.locator(".scroll").evaluate("box => box.scrollTop = box.scrollHeight")
    page.locator(f"[data-row='x-{9_999}']").wait_for()
    assert page.locator("tbody tr").count() < 100


def test_charts_and_logs_show_what_was(open_page: OpenPage, served: Served, picture: Picture) -> None:
    page = ready(open_page(served, "metrics"))
    page.locator("path.line.a[d*=L]").first.wait_for(state="attached")
    page = ready(open_page(served, "logs"))
    page.get_by_label("Filter").fill("request.finished")
    page.get_by_text("path=/engines/smollm2/load").first.wait_for()


def test_pages_fit_narrow_and_wide_screens(open_page: OpenPage, served: Served, picture: Picture) -> None:
    for width in (360, 3840):
        page = ready(open_page(served, "engines", width=width))
        engine_card(page, "smollm2").wait_for()
        for view in VIEWS:
            page.goto(re.sub(r"#.*", f"#/{view}", page.url))
            page.locator(f".view.{view}").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, width)
            if width == 360 and view == "engines":
                engine_card(page, "smollm2").wait_for()
                picture(page, "narrow")


def test_everything_can_be_reached_by_keyboard(open_page: OpenPage, served: Served) -> None:
    page = ready(open_page(served))
    engine_card(page, "smollm2").wait_for()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
            )
        )
    assert {
        "Engines",
        "Keys",
        "Chat with smollm2",
        "Unload smollm2",
        "Pin smollm2",
        "Remove smollm2",
    } <= reached
    page.get_by_role("button", name="Remove smollm2").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_fault(open_page: OpenPage, served: Served, axe: str, dark: bool) -> None:
    page = ready(open_page(served, "engines", dark=dark))
    page.evaluate(axe)
    found = []
    for view in VIEWS:
        page.goto(re.sub(r"#.*", f"#/{view}", page.url))
        page.locator(f".view.{view}").wait_for()
        if view == "engines":
            engine_card(page, "smollm2").wait_for()
        result = page.evaluate("axe.run()")
        found += [
            (view, each["id"], each["nodes"][0]["html"])
            for each in result["violations"]
            if each["impact"] in ("serious", "critical")
        ]
    assert found == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to kill with")
def test_a_crash_is_shown_in_words(open_page: OpenPage, served: Served, picture: Picture) -> None:
    page = ready(open_page(served))
    engine_card(page, "smollm2").wait_for()
    with served.http() as http:
        worker = http.get("/engines/smollm2").json()["worker_pid"]
        psutil.Process(worker).send_signal(signal.SIGKILL)
        card = engine_card(page, "smollm2")
        card.locator(".pill[data-state=failed]").wait_for()
        assert "killed by SIGKILL" in card.locator(".error").inner_text()
        picture(page, "crash")
        card.get_by_role("button", name="Load").click()
        card.locator(".pill[data-state=ready]").wait_for()


def test_a_thousand_engines_are_listed_and_filtered(open_page: OpenPage, served: Served) -> None:
    with served.http() as http:
        facts = http.get("/engines/smollm2").json()
    more = [{**facts, "engine_id": f"m{n:04}", "state": "unloaded", "last_error": None} for n in range(1000)]
    answer = {"engines": [facts, *more], "total_count": 1001}
    page = ready(open_page(served, "logs"))
    page.route("**/engines?details=true", lambda route: route.fulfill(json=answer))
    page.goto(f"{served.url}/ui#/engines")
    page.get_by_text("1,001 engines, 1 loaded").wait_for()
    page.get_by_label("Filter").fill("m0999")
    assert page.get_by_role("article").filter(visible=True).count() == 1


def test_a_restart_is_noticed_and_said(open_page: OpenPage, served: Served) -> None:
    page = ready(open_page(served))
    engine_card(page, "smollm2").wait_for()
    served.daemon.stop()
    page.get_by_text("The daemon does not answer").wait_for()
    served.restart()
    page.get_by_text("The daemon was restarted; connected again").wait_for()
    engine_card(page, "smollm2").wait_for()


def test_keys_are_made_shown_once_and_revoked(
    open_page: OpenPage, empty_home: Served, picture: Picture
) -> None:
    page = ready(open_page(empty_home, "keys"))
    page.get_by_label("Name").fill("operator")
    page.get_by_role("button", name="Make a key").click()
    operator = page.locator(".made code").inner_text()
    assert operator.startswith("kol_")
    page.get_by_text("This tab uses the new one").wait_for()
    page.get_by_label("Name").fill("guest")
    page.get_by_role("button", name="Make a key").click()
    page.locator(".made", has_text="guest").wait_for()
    guest = page.locator(".made code").inner_text()

    stranger = open_page(empty_home, "engines")
    stranger.get_by_label("API key").fill("a-wrong-key-of-nobody")
    picture(stranger, "login")
    stranger.get_by_role("button", name="Open the console").click()
    stranger.get_by_text("The API key is not valid").wait_for()
    stranger.get_by_label("API key").fill(guest)
    stranger.get_by_role("button", name="Open the console").click()
    stranger.get_by_text("This needs a key with the scope admin, and guest has only").wait_for()
    stranger.goto(f"{empty_home.url}/ui#/chat")
    stranger.get_by_label("Engine", exact=True).wait_for()

    page.get_by_role("button", name="Revoke guest").click()
    page.get_by_role("button", name="Revoke", exact=True).click()
    page.get_by_text("guest is revoked").wait_for()
    stranger.get_by_label("API key").or_(stranger.get_by_label("Message")).first.wait_for()
    stranger.goto(f"{empty_home.url}/ui#/models")
    stranger.get_by_text("it may have been revoked").wait_for()

    docs = open_page(empty_home, "engines")
    docs.goto(f"{empty_home.url}/docs")
    docs.get_by_label("This daemon needs an API key:").fill(operator)
    docs.get_by_role("button", name="Show").click()
    docs.get_by_text("/v1/chat/completions").first.wait_for()
    docs.evaluate("for (const each of document.querySelectorAll('.operation')) each.open = true")
    docs.locator("#upload_file .fields", has_text="purpose").first.wait_for()


def test_the_first_view_is_small_and_comes_from_here(open_page: OpenPage, served: Served) -> None:
    sizes = {}
    page = open_page(served, "keys")
    page.on(
        "response",
        lambda answer: sizes.update({answer.url: len(answer.body())}) if "/ui" in answer.url else None,
    )
    page.reload()
    page.locator("h1").wait_for()
    assert sizes
    assert sum(sizes.values()) <= MAX_FIRST_VIEW_BYTES
    with httpx.Client(base_url=served.url) as http:
        whole = sum(len(http.get(f"/ui/{name}").content) for name in FIRST_VIEW)
    assert whole <= MAX_FIRST_VIEW_BYTES
