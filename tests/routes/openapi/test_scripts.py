"""The page's scripts: commands that send what the example says, and schemas in words. Run by node, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest

from kolosal.routes import all_routes
from kolosal.routes.openapi.document import build_document

STATIC = Path(str(files("kolosal.routes.openapi") / "static"))
NODE, SH = shutil.which("node"), shutil.which("sh")

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

BODY = {"text": 'it\'s "quoted", $HOME `x` \\ and\nmore', "ü": [1, 2.5, None, True]}


def call(module: str, function: str, *arguments: object) -> Any:
    """What a function of one of the page's modules returns; both ways as JSON."""
    script = (
        f"import {{ {function} }} from {json.dumps((STATIC / module).as_uri())};"
        f"console.log(JSON.stringify({function}(...{json.dumps(arguments)}.map((x) => x ?? undefined))))"
    )
    done = subprocess.run(
        [str(NODE), "--input-type=module", "--eval", script], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(SH is None, reason="needs a POSIX shell")
def test_a_shell_reads_the_curl_command_as_it_is_meant() -> None:
    command = call("examples.js", "command", "curl", "post", "http://127.0.0.1:8080/x", BODY, True)
    script = f"""curl() {{ printf '%s\\0' "$@"; }}\n{command}"""
    done = subprocess.run([str(SH), "-c", script], capture_output=True, text=True, check=True)
    words = done.stdout.split("\0")
    assert words[:4] == ["-N", "http://127.0.0.1:8080/x", "-H", "Content-Type: application/json"]
    assert orjson.loads(words[5]) == BODY


@pytest.mark.parametrize(
    ("verb", "body", "expected"),
    [
        ("get", None, "curl http://h/x"),
        ("delete", None, "curl -X DELETE http://h/x"),
        ("post", None, "curl -X POST http://h/x"),
    ],
)
def test_curl_names_a_verb_that_it_would_not_choose(verb: str, body: object, expected: str) -> None:
    assert call("examples.js", "command", "curl", verb, "http://h/x", body, False) == expected


def test_powershell_gets_the_body_word_for_word() -> None:
    command = call("examples.js", "command", "powershell", "post", "http://h/x", BODY, False)
    text, _, rest = command.removeprefix("$body = @'\n").partition("\n'@\n")
    assert orjson.loads(text) == BODY
    assert rest == (
        'Invoke-RestMethod http://h/x -Method Post -Body $body -ContentType "application/json; charset=utf-8"'
    )


def test_powershell_streams_through_a_file() -> None:
    command = call("examples.js", "command", "powershell", "post", "http://h/x", BODY, True)
    assert command.startswith("Set-Content body.json @'\n")
    assert command.endswith('\n\'@ -Encoding utf8\ncurl.exe -N http://h/x -d "@body.json"')


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 1_000_000}, "integer, 0 to 1\u202f000\u202f000"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number, above 0, up to 1"),
        ({"type": "string", "minLength": 1}, "string, at least 1 character"),
        ({"type": "string", "maxLength": 256}, "string, up to 256 characters"),
        ({"enum": ["a", "b"], "type": "string"}, '"a", "b"'),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "boolean"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 64}, "array of up to 64 \u00d7 string"),
        (
            {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "integer"}]}},
            "array of (string or integer)",
        ),
        ({"$ref": "#/x"}, "object"),
        ({}, "anything"),
    ],
)
def test_a_schema_in_words(schema: object, expected: str) -> None:
    assert call("schema.js", "words", {"x": {"type": "object"}}, schema) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"type": ["string", "null"]}, True),
        ({"type": "null"}, True),
        ({"type": "string"}, False),
        ({}, False),
    ],
)
def test_null_is_noticed(schema: object, expected: bool) -> None:
    assert call("schema.js", "nullable", {}, schema) is expected


def test_every_field_of_our_own_document_has_words() -> None:
    document = orjson.loads(orjson.dumps(build_document(all_routes())))
    schemas = document["components"]["schemas"].values()
    fields = [field for schema in schemas for field in schema.get("properties", {}).values()]
    script = (
        f"import {{ words }} from {json.dumps((STATIC / 'schema.js').as_uri())};"
        "const { document, fields } = JSON.parse(await new Response(process.stdin).text());"
        "console.log(JSON.stringify(fields.map((field) => words(document, field))))"
    )
    done = subprocess.run(
        [str(NODE), "--input-type=module", "--eval", script],
        input=json.dumps({"document": document, "fields": fields}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [each for each in json.loads(done.stdout) if "undefined" in each or not each] == []
