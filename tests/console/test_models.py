"""The console's view of models: from an empty home over a model that is pulled to a chat with it, its settings, and its end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.console.conftest import Served
from tests.console.test_console import OpenPage, Picture, ask, ready
from tests.fake_hub import FakeHub

pytestmark = [pytest.mark.model, pytest.mark.timeout(240), pytest.mark.xdist_group("console")]

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct-GGUF"
PULLED = f"{REPO}:Q4_1"


def row(page: Any, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))


def download(page: Any) -> Any:
    return page.get_by_role("article", name=PULLED)


def serious(page: Any) -> list[tuple[str, str]]:
    """What axe finds of the page as it is."""
    result = page.evaluate("axe.run()")
    return [
        (each["id"], each["nodes"][0]["html"])
        for each in result["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def test_a_session_from_an_empty_home_over_a_pulled_model_to_a_chat(
    open_page: OpenPage, hub_home: Served, hub: FakeHub, picture: Picture, axe: str
) -> None:
    page = ready(open_page(hub_home, "models", width=1280))
    page.evaluate(axe)
    page.get_by_text("No model yet").wait_for()
    picture(page, "models-empty")
    real = hub.repositories[REPO].files["smollm2-135m-instruct-q4_1.gguf"]
    real.bytes_per_s = 8_000_000

    # found, chosen, fetched
    page.get_by_role("button", name="Get a model").click()
    page.get_by_label("Search, or a name").fill("smollm2")
    page.get_by_role("dialog").get_by_role("button", name=REPO).click()
    page.get_by_role("radio", name="Q8_0").check()
    page.locator(".estimate.good", has_text="Q8_0").wait_for()
    page.get_by_role("radio", name="Q4_1").check()
    page.locator(".estimate.good", has_text="Q4_1").wait_for()
    picture(page, "pull")
    assert serious(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Get", exact=True).click()

    # paused, resumed, there
    card = download(page)
    card.get_by_text(re.compile(r"MiB of .* MiB/s · \d+:\d\d left")).wait_for()
    picture(page, "downloads")
    card.get_by_role("button", name="Pause").click()
    card.get_by_text("Paused").wait_for()
    assert serious(page) == []
    real.bytes_per_s = None
    card.get_by_role("button", name="Resume").click()
    page.get_by_text(f"{PULLED} is here").wait_for()
    model = row(page, PULLED)
    for fact in ("Hugging Face", "Q4_1", "context 8,192", "completion", "On disk"):
        model.get_by_text(fact).first.wait_for()

    # what holds for it, said and kept
    model.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Other names").fill("tiny, small")
    dialog.get_by_label("System prompt").fill("You are a geographer who answers in one sentence.")
    dialog.get_by_label("Temperature").fill("0")
    dialog.get_by_label("Keep in memory").fill("10m")
    dialog.get_by_text("Profiles", exact=True).click()
    dialog.get_by_role("button", name="Add a profile").click()
    dialog.get_by_label("Profile's name").fill("creative")
    dialog.get_by_role("group", name="Profile").get_by_label("Temperature").fill("1.2")
    dialog.get_by_role("button", name="Save").click()
    page.get_by_text("hold from the next request on").wait_for()
    with hub_home.http() as http:
        said = http.get(f"/v1/model-settings/{PULLED}").json()["settings"]
    assert said == {
        "alias": ["tiny", "small"],
        "system": "You are a geographer who answers in one sentence.",
        "keep_alive": "10m",
        "sampling": {"temperature": 0.0},
        "profiles": {"creative": {"sampling": {"temperature": 1.2}}},
    }
    model.get_by_role("button", name="Settings").click()
    assert dialog.get_by_label("Other names").input_value() == "tiny, small"
    dialog.get_by_text(re.compile(r"from models\.yaml:\d+")).first.wait_for()
    picture(page, "model-settings")
    assert serious(page) == []
    page.keyboard.press("Escape")

    # loaded, talked to
    model.get_by_role("button", name="Load", exact=False).first.click()
    model.get_by_text("Loaded").wait_for()
    model.get_by_role("link", name="Chat").click()
    picker = page.get_by_label("Engine", exact=True)
    picker.locator("option:checked", has_text=PULLED).wait_for(state="attached")
    ask(page, "What is the capital of France?")
    page.locator(".foot", has_text="tokens/s").wait_for()
    assert "Paris" in page.locator(".answer").inner_text()


def test_damaged_files_are_told_and_models_are_deleted(
    open_page: OpenPage, empty_home: Served, smollm2: Path
) -> None:
    page = ready(open_page(empty_home, "models"))
    page.get_by_text("Where models are looked for").click()
    folder = Path(page.locator(".folders code").first.inner_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "whole.gguf").symlink_to(smollm2)
    (folder / "damaged.gguf").write_bytes(b"GGUF" + bytes(8))
    (folder / "<img src=x>.gguf").write_bytes(b"none")
    page.get_by_role("button", name="Look again").click()
    damaged = row(page, "damaged")
    damaged.get_by_text("Damaged", exact=True).wait_for()
    assert damaged.get_by_role("link", name="Chat").count() == 0
    assert len(damaged.locator("th .bad").inner_text()) > 10
    page.get_by_text("<img src=x>", exact=True).wait_for()
    damaged.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("damaged is deleted").wait_for()
    damaged.wait_for(state="detached")
    assert not (folder / "damaged.gguf").exists()


def test_what_cannot_be_fetched_is_said_in_the_dialog(open_page: OpenPage, hub_home: Served) -> None:
    page = ready(open_page(hub_home, "models"))
    page.get_by_role("button", name="Get a model").click()
    name: Callable[[str], None] = page.get_by_label("Search, or a name").fill
    name("hf.co/nobody/nothing")
    page.locator(".estimate.bad", has_text="There is no repository nobody/nothing").wait_for()
    name("ollama:")
    page.locator(".estimate.bad").wait_for()
    name("no such words")
    page.get_by_text("The hub has no GGUF models of that name").wait_for()
    assert page.get_by_role("button", name="Get", exact=True).is_disabled()
