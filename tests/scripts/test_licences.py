from __future__ import annotations

import json
from email.message import Message

import pytest
from licences import LOCK, UNKNOWN, components, licence_of, locked, main


def metadata(**fields: str | list[str]) -> Message:
    message = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT", "License": "see file"}, "MIT"),
        ({"Classifier": ["License :: OSI Approved :: BSD License", "Topic :: X"]}, "BSD License"),
        ({"Classifier": ["License :: OSI Approved"], "License": "Apache-2.0"}, "Apache-2.0"),
        ({"License": "a whole text\nof many lines"}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_a_licence_is_read_where_a_package_says_it(fields: dict[str, str | list[str]], licence: str) -> None:
    assert licence_of(metadata(**fields)) == licence


def test_every_package_that_is_installed_says_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert listed == {"kolosal", "llama.cpp", *(name for name, _ in locked(LOCK))}


def test_the_bill_of_materials_names_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cyclonedx"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["bomFormat"], document["metadata"]["component"]["name"]) == ("CycloneDX", "kolosal")
    assert len(document["components"]) == len(components(LOCK)) - 1
    assert len({each["bom-ref"] for each in document["components"]}) == len(document["components"])
