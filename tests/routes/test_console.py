"""The console's page and what it is made with; how it looks to a person is in tests/console."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from kolosal.routes.console.markdown import to_html
from tests.fakes import FakeEngine, app_with, http_client

STATIC = {
    each.name: each.read_text(encoding="utf-8")
    for each in (files("kolosal.routes.console") / "static").iterdir()
}


async def test_a_browser_is_led_to_the_console_and_programs_are_greeted() -> None:
    async with http_client(app_with()) as client:
        led = await client.get("/", headers={"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"})
        assert (led.status_code, led.headers["location"]) == (307, "ui")
        assert (await client.get("/", headers={"accept": "*/*"})).json()["status"] == "running"
        page = await client.get("/ui")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "unsafe" not in page.headers["content-security-policy"]


async def test_every_file_of_the_page_is_served_and_no_other() -> None:
    wanted = {name for text in STATIC.values() for name in re.findall(r'"(?:\./|ui/)([\w.]+)"', text)}
    async with http_client(app_with()) as client:
        for name in {*wanted, *STATIC}:
            answer = await client.get(f"/ui/{name}")
            assert (answer.status_code, answer.content.decode()) == (200, STATIC[name])
        assert (await client.get("/ui/pages.py")).status_code == 404


@pytest.mark.parametrize("name", [*STATIC])
def test_nothing_comes_from_another_host_or_stands_inline(name: str) -> None:
    text = STATIC[name].replace("http://www.w3.org/2000/svg", "").replace("https://example.org/", "")
    assert not re.search(
        r"https?://|innerHTML|outerHTML|insertAdjacent|\son\w+=\"|<script>|<style|setAttribute\(\"style", text
    )


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>x</script>", "<p>&lt;script&gt;x&lt;/script&gt;</p>\n"),
        ("a <b onclick=x>", "<p>a &lt;b onclick=x&gt;</p>\n"),
        ("[a](javascript:x)", "<p>[a](javascript:x)</p>\n"),
        ("[a](/engines)", "<p>[a](/engines)</p>\n"),
        ("~~a~~ `<`", "<p><s>a</s> <code>&lt;</code></p>\n"),
        ('```x" y\n<\n```', '<pre><code class="language-x&quot;">&lt;\n</code></pre>\n'),
        ('[a](https://b.c/"d)', '<p><a href="https://b.c/%22d" target="_blank" rel="noopener noreferrer">a</a></p>\n'),
    ],
)  # fmt: skip
def test_markdown_becomes_html_without_any_of_its_own(text: str, html: str) -> None:
    assert to_html(text) == html


def test_a_picture_is_only_a_link() -> None:
    assert "<img" not in to_html("![a](https://b.c/d.png)")


async def test_markdown_is_bounded() -> None:
    async with http_client(app_with(FakeEngine("a"))) as client:
        assert (await client.post("/v1/markdown", json={"text": "**b**"})).json() == {
            "html": "<p><strong>b</strong></p>\n"
        }
        assert (await client.post("/v1/markdown", json={"text": "x" * 131_073})).status_code == 400
        nested = await client.post("/v1/markdown", json={"text": ">" * 50_000 + "*[" * 30_000})
    assert nested.status_code == 200
