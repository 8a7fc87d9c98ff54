"""JSON schemas as clients write them → what can be enforced of them. Pure.

`enforceable` is the way in; `places` says what stands where, `references` where `$ref` leads, `leaves` and `patterns` read keywords of
strings and numbers, `apart` tells when no value is of two schemas.
"""
