"""`POST /v1/markdown`: Markdown as HTML that is safe to show: no HTML of the text's own, no images, no links but to the web.

Owns the only HTML that the console ever inserts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.http.decode import RequestBody, decode
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

MAX_TEXT_CHARS = 131_072
"""Characters of one text."""


class MarkdownBody(RequestBody):
    """The text."""

    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    """In CommonMark, with tables and strikethrough."""


class RenderedMarkdown(TypedDict):
    """The text for a browser."""

    html: str
    """Every `<` of the text is escaped; links open another tab and tell nothing of this page."""


@Operation(
    group=Group.DAEMON,
    scope=Access.ANY_KEY,
    body=MarkdownBody,
    example={"text": "# Hello\n\n* a list"},
    answer="The HTML.",
)
async def render_markdown(request: Request) -> JsonResponse[RenderedMarkdown]:
    """Markdown as HTML that holds no HTML of the text's own. What a model writes is nobody's to trust."""
    body = await decode(request, MarkdownBody)
    html = await in_thread_if_large(len(body.text), lambda: to_html(body.text))
    return JsonResponse({"html": html})


def to_html(text: str) -> str:
    """Markdown as HTML. Pure."""
    return str(_renderer().render(text))


@cache
def _renderer() -> MarkdownIt:
    from markdown_it import MarkdownIt  # noqa: PLC0415 - only who looks at the console needs it

    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    markdown.disable(["image", "html_block", "html_inline"])  # a picture would be asked of a foreign host
    markdown.validateLink = _is_web  # type: ignore[method-assign]
    markdown.add_render_rule("link_open", _open_elsewhere)
    return markdown


def _open_elsewhere(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    environment: EnvType,
) -> str:
    """The beginning of a link, as a rule of markdown-it: in another tab, which learns nothing of this page."""
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer")
    return renderer.renderToken(tokens, index, options, environment)


def _is_web(url: str) -> bool:
    """Whether a link leads to the web: neither to a script nor into this daemon."""
    return url.lower().startswith(("https://", "http://", "mailto:"))
