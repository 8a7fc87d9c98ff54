"""Schemas as clients' libraries write them: one or more of each habit. All are objects, as tools' parameters are."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
DURATION = r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"
UUID = r"^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}|00000000-0000-0000-0000-000000000000)$"
DATE = r"(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|(?:02)-(?:0[1-9]|1\d|2[0-8])))"
DATETIME = rf"^{DATE}T(?:(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:Z))$"
SAFE = 9007199254740991
DRAFT7, DRAFT2020 = "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"


def string(**keywords: Any) -> Schema:
    return {"type": "string", **keywords}


def one(value: Any, **keywords: Any) -> Schema:
    """An object with one member, which is required."""
    return {"type": "object", "properties": {"a": value}, "required": ["a"], **keywords}


def closed(required: list[str] | None = None, /, **properties: Any) -> Schema:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def zod(schema: Schema, draft: str = DRAFT2020) -> Schema:
    return {"$schema": draft, **schema}


_NODE = closed(["v"], v=string(), next={"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]})
_CAT, _DOG = closed(t={"const": "cat"}, lives={"type": "integer"}), closed(t={"const": "dog"}, bark=string())

ZOD: dict[str, Schema] = {
    "zod-email": zod(closed(mail=string(format="email", pattern=EMAIL))),
    "zod-duration": zod(closed(d=string(format="duration", pattern=DURATION))),
    "zod-uuid": zod(closed(id=string(format="uuid", pattern=UUID))),
    "zod-datetime": zod(closed(at=string(format="date-time", pattern=DATETIME))),
    "zod-date": zod(closed(at=string(format="date", pattern=f"^{DATE}$"))),
    "zod-int": zod(closed(n={"type": "integer", "minimum": -SAFE, "maximum": SAFE})),
    "zod-positive": zod(closed(n={"type": "integer", "exclusiveMinimum": 0, "maximum": SAFE})),
    "zod-int64": zod(closed(n={"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1})),
    "zod-float64": zod(closed(n={"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308})),
    "zod-float32": zod(closed(n={"type": "number", "minimum": -3.4028234663852886e38, "maximum": 3.4028234663852886e38})),
    "zod-record": zod(closed(m={"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "number"}})),
    "zod-enum-record": zod(closed(m={"type": "object", "propertyNames": string(enum=["x", "y"]), "additionalProperties": {"type": "integer"}, "required": ["x", "y"]})),
    "zod-pattern-record": zod(closed(m={"type": "object", "propertyNames": string(pattern="^k_[a-z]+$"), "additionalProperties": {"type": "boolean"}})),
    "zod-any": zod(closed(["a"], a={}, b={})),
    "zod-never": zod(closed(["a"], a=string(), b={"not": {}})),
    "zod-default": zod(closed(n={"default": 3, "type": "number"}, s={"default": None, "anyOf": [string(), {"type": "null"}]})),
    "zod-tuple": zod(closed(p={"type": "array", "prefixItems": [string(), {"type": "number"}]})),
    "zod-tuple-rest": zod(closed(p={"type": "array", "prefixItems": [string()], "items": {"type": "number"}})),
    "zod-lazy": zod({**closed(root={"$ref": "#/$defs/Node"}), "$defs": {"Node": _NODE}}),
    "zod-recursive-root": zod(closed(["name"], name=string(), children={"type": "array", "items": {"$ref": "#"}})),
    "zod-union": zod(closed(u={"anyOf": [string(), {"type": "number"}, {"type": "array", "items": string()}]})),
    "zod-discriminated": zod(closed(u={"oneOf": [_CAT, _DOG]})),
    "zod-intersection": zod({"allOf": [{"type": "object", "properties": {"a": string()}, "required": ["a"]}, {"type": "object", "properties": {"b": {"type": "number"}}, "required": ["b"]}]}),
    "zod-url": zod(closed(u=string(format="uri"))),
    "zod-ip": zod(closed(i=string(format="ipv4", pattern=r"^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])$"))),
    "zod-cuid": zod(closed(i=string(format="cuid", pattern="^[cC][^\\s-]{8,}$"))),
    "zod-emoji": zod(closed(e=string(format="emoji", pattern=r"^(\p{Extended_Pictographic}|\p{Emoji_Component})+$"))),
    "zod-base64": zod(closed(b=string(format="base64", contentEncoding="base64", pattern="^$|^(?:[0-9a-zA-Z+/]{4})*(?:(?:[0-9a-zA-Z+/]{2}==)|(?:[0-9a-zA-Z+/]{3}=))?$"))),
    "zod-starts-includes": zod(closed(a=string(allOf=[{"pattern": "^foo.*"}, {"pattern": "bar"}]))),
    "zod-multiple": zod(closed(n={"type": "number", "multipleOf": 0.01})),
    "zod3-set": zod(closed(s={"type": "array", "uniqueItems": True, "items": string()}), DRAFT7),
    "zod3-nullable": zod(closed(s={"type": ["string", "null"]}), DRAFT7),
    "zod3-tuple": zod(closed(p={"type": "array", "minItems": 2, "maxItems": 2, "items": [string(), {"type": "number"}]}), DRAFT7),
    "zod3-path-refs": zod(closed(home=closed(city=string()), work={"$ref": "#/properties/home"}), DRAFT7),
    "zod3-map": zod(closed(m={"type": "array", "maxItems": 125, "items": {"type": "array", "items": [string(), {"type": "number"}], "minItems": 2, "maxItems": 2}}), DRAFT7),
    "zod3-definitions": {"$ref": "#/definitions/In", "definitions": {"In": closed(q=string(minLength=1))}, "$schema": DRAFT7},
    "zod3-openapi": closed(s={"type": "string", "nullable": True}, n={"type": "number", "minimum": 0, "exclusiveMinimum": True}),
    "zod3-strict-intersection": zod({"allOf": [{"type": "object", "properties": {"a": string()}}, {"type": "object", "properties": {"b": string()}}], "unevaluatedProperties": False}, DRAFT7),
}  # fmt: skip

PYDANTIC: dict[str, Schema] = {
    "pydantic-optional": one({"anyOf": [string(), {"type": "null"}], "default": None, "title": "A"}, title="Model"),
    "pydantic-ref": one({"$ref": "#/$defs/B"}, **{"$defs": {"B": one(string(title="A"), title="B")}}),
    "pydantic-ref-sibling": one({"$ref": "#/$defs/B", "description": "A b", "default": {"a": "x"}}, **{"$defs": {"B": one(string())}}),
    "pydantic-v1": {**one({"title": "A", "allOf": [{"$ref": "#/definitions/B"}]}), "definitions": {"B": one(string(), title="B")}},
    "pydantic-enum": one({"$ref": "#/$defs/Color"}, **{"$defs": {"Color": {"enum": ["red", "blue"], "title": "Color", "type": "string"}}}),
    "pydantic-union": one({"discriminator": {"mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}, "propertyName": "t"}, "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}, **{"$defs": {"Cat": _CAT, "Dog": _DOG}}),
    "pydantic-tree": one({"$ref": "#/$defs/Node"}, **{"$defs": {"Node": {"type": "object", "title": "Node", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []}}}}}),
    "pydantic-decimal": one({"anyOf": [{"type": "number"}, string(pattern=r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$")]}),
    "pydantic-tuple": one({"type": "array", "maxItems": 2, "minItems": 2, "prefixItems": [{"type": "integer"}, string()]}),
    "pydantic-dict": one({"additionalProperties": {"type": "integer"}, "type": "object"}),
    "pydantic-set": one({"type": "array", "uniqueItems": True, "items": {"type": "integer"}}),
    "pydantic-bytes": one(string(format="binary")),
    "pydantic-path": one(string(format="path")),
    "pydantic-secret": one(string(format="password", writeOnly=True)),
    "pydantic-constr": one(string(pattern=r"\A[a-z]+\Z", maxLength=10)),
    "pydantic-flags": one(string(pattern=r"(?i)^yes|no$")),
    "pydantic-named-groups": one(string(pattern=r"^(?P<y>\d{4})-(?P<m>\d{2})$")),
    "pydantic-multiple": one({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 50}),
    "pydantic-literal": one({"const": "fixed", "title": "A", "type": "string"}),
    "pydantic-mixed-literal": one({"enum": [1, "a", None, True]}),
    "pydantic-timedelta": one(string(format="duration")),
    "pydantic-no-fields": {"properties": {}, "title": "Empty", "type": "object"},
    "pydantic-extra": one(string(), additionalProperties=True),
}  # fmt: skip

TYPESCRIPT: dict[str, Schema] = {
    "ts-anyof-consts": one({"anyOf": [{"const": "a", "type": "string"}, {"const": "b", "type": "string"}]}),
    "ts-index": one({"type": "object", "additionalProperties": {}}),
    "ts-definitions": {"$ref": "#/definitions/Args", "$schema": DRAFT7, "definitions": {"Args": one({"$ref": "#/definitions/Rec<string,number>"}), "Rec<string,number>": {"type": "object", "additionalProperties": {"type": "number"}}}},
    "ts-encoded-ref": {**one({"$ref": "#/definitions/A%3Cstring%3E"}), "definitions": {"A<string>": string()}},
    "ts-ref-pointer-escape": {**one({"$ref": "#/definitions/a~1b"}), "definitions": {"a/b": string(maxLength=3)}},
    "ts-date": one(string(format="date-time")),
    "ts-typeof": one({"type": "object", "properties": {"f": {"typeof": "function"}}}),
    "ts-enum-names": one({"enum": [0, 1], "enumNames": ["Off", "On"], "type": "number"}),
    "ts-tuple": one({"type": "array", "items": [string(), string()], "additionalItems": False, "minItems": 2}),
    "ts-optional-object": {"type": ["object", "null"], "properties": {"a": {"type": ["string", "number", "null"]}}},
    "ts-anchors": {**one({"$ref": "#thing"}), "$defs": {"T": {"$anchor": "thing", "type": "integer", "minimum": 1, "maximum": 3}}},
    "ts-ids": {**one({"$ref": "https://x.example/item.json"}), "$defs": {"I": {"$id": "https://x.example/item.json", "type": "boolean"}}},
}  # fmt: skip

MCP: dict[str, Schema] = {
    "mcp-empty": {},
    "mcp-object": {"type": "object"},
    "mcp-no-parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    "mcp-no-type": {"properties": {"path": string()}, "required": ["path"]},
    "mcp-null-keywords": {"type": "object", "properties": None, "required": None},
    "mcp-null-members": one({"type": "string", "enum": None, "format": None, "minLength": None, "pattern": None, "const": None}),
    "mcp-any": one({"type": "any"}),
    "mcp-python-types": {"type": "object", "properties": {"a": {"type": "str"}, "b": {"type": "int"}, "c": {"type": "dict"}, "d": {"type": "list"}}},
    "mcp-gemini-types": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "format": "enum", "enum": ["X", "Y"]}}, "required": ["a"]},
    "mcp-misplaced-defs": {"type": "object", "properties": {"filter": {"type": "object", "properties": {"by": {"$ref": "#/$defs/By"}}, "$defs": {"By": string(enum=["name", "date"])}}}},
    "mcp-lost-defs": one({"$ref": "#/components/schemas/Lost"}),
    "mcp-required-boolean": {"type": "object", "properties": {"path": {"type": "string", "required": True}, "n": {"type": "number", "required": False}}},
    "mcp-required-unknown": one(string(), required=["a", "b"]),
    "mcp-required-unknown-closed": one(string(), required=["a", "b"], additionalProperties=False),
    "mcp-additional-string": one(string(), additionalProperties="false"),
    "mcp-additional-list": one(string(), additionalProperties=[]),
    "mcp-either": {"type": "object", "properties": {"a": string(), "b": string()}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "mcp-one-of-required": {"type": "object", "properties": {"a": string(), "b": string()}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "mcp-if": one(string(), **{"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}, "else": {}}),
    "mcp-dependent": one(string(), dependentRequired={"a": ["b"]}, minProperties=1, maxProperties=4),
    "mcp-dependencies": one(string(), dependencies={"a": ["b"]}),
    "mcp-patterns": {"type": "object", "patternProperties": {"^x-": string(), "-y$": {"type": "number"}}, "additionalProperties": False},
    "mcp-headers": one({"type": "object", "patternProperties": {"^[A-Za-z-]+$": string()}, "additionalProperties": False}),
    "mcp-contains": one({"type": "array", "contains": {"const": 1}, "minContains": 1}),
    "mcp-1500": one({"enum": [f"zone {index}/city" for index in range(1500)]}),
    "mcp-120-properties": {"type": "object", "properties": {f"p{index}": string(description="x" * 30) for index in range(120)}},
    "mcp-array-root": {"type": "array", "items": string()},
    "mcp-string-root": {"type": "string"},
    "mcp-boolean-members": {"type": "object", "properties": {"a": True, "b": False}},
    "mcp-members-are-strings": {"type": "object", "properties": {"a": "string", "b": "number"}},
}  # fmt: skip

OPENAPI: dict[str, Schema] = {
    "openapi-nullable-ref": {**one({"$ref": "#/components/schemas/P", "nullable": True}), "components": {"schemas": {"P": one(string())}}},
    "openapi-nullable-enum": one({"type": "string", "enum": ["a", "b"], "nullable": True}),
    "openapi-nullable-all-of": {**one({"allOf": [{"$ref": "#/components/schemas/P"}], "nullable": True}), "components": {"schemas": {"P": one(string())}}},
    "openapi-extends": {**one({"$ref": "#/components/schemas/Dog"}), "components": {"schemas": {"Pet": {"type": "object", "required": ["name"], "properties": {"name": string(), "kind": {"$ref": "#/components/schemas/Kind"}}}, "Dog": {"allOf": [{"$ref": "#/components/schemas/Pet"}, {"type": "object", "properties": {"bark": {"type": "boolean"}}}]}, "Kind": string(enum=["dog", "cat"])}}},
    "openapi-formats": {"type": "object", "properties": {"i": {"type": "integer", "format": "int32"}, "l": {"type": "integer", "format": "int64"}, "f": {"type": "number", "format": "float"}, "b": string(format="byte"), "u": string(format="uri-reference")}},
    "openapi-float-lengths": one({"type": "string", "minLength": 1.0, "maxLength": 10.0}),
    "openapi-odd-lengths": one({"type": "string", "minLength": -1, "maxLength": "10"}),
    "openapi-read-only": one(string(readOnly=True, example="x", xml={"name": "a"}, externalDocs={"url": "https://x.example"})),
    "openapi-one-of": one({"oneOf": [string(), string(maxLength=3)]}),
    "openapi-swapped": one({"type": "integer", "minimum": 10, "maximum": 1}),
    "openapi-empty": one({"enum": []}),
    "openapi-any-of-empty": one({"anyOf": []}),
    "openapi-enum-types": one({"type": "string", "enum": ["1", 2, None, "1"]}),
    "openapi-duplicates": one({"enum": ["a", "a", "b"]}),
    "openapi-draft4": one({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": False}),
    "openapi-chain": {**one({"$ref": "#/$defs/a0"}), "$defs": {**{f"a{index}": {"$ref": f"#/$defs/a{index + 1}"} for index in range(300)}, "a300": {"type": "null"}}},
    "openapi-loop": {**one({"$ref": "#/$defs/a"}), "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "openapi-word": one(string(pattern=r"\bword\b")),
    "openapi-same-twice": one(string(pattern=r"^(['\"])[a-z]*\1$")),
    "openapi-slashes": one(string(pattern=r"^\/api\/v[0-9]+\/[\w\-\.]+$")),
    "openapi-code-points": one(string(pattern=r"^[\u4e00-\u9fa5\uD83D\uDE00]{1,4}$")),
    "openapi-not-a-pattern": one(string(pattern="[")),
    "openapi-much-repeated": one(string(pattern="^(a{1000}){1000}$")),
}  # fmt: skip

CLIENT_SCHEMAS: dict[str, Schema] = ZOD | PYDANTIC | TYPESCRIPT | MCP | OPENAPI
