"""Chat templates after the rules of known families, in our own words: which turns they take, and in which order."""

from __future__ import annotations

_CALLS = "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} {{ c.function.arguments | tojson }}</tool_call>{% endfor %}"
_TURN = "<{{ m.role }}>{{ m.content or '' }}" + _CALLS
_SAYS = "{{ raise_exception('%s') }}"
_END = "{% if add_generation_prompt %}<assistant>{% endif %}"

_ALTERNATE = (
    "{% set ns = namespace(n=0) %}{% for m in turns %}{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{% if (m.role == 'user') != (ns.n % 2 == 0) %}"
    + _SAYS
    % "roles must alternate"
    + "{% endif %}{% set ns.n = ns.n + 1 %}"
    "{% elif m.role not in ('assistant', 'tool') %}" + _SAYS % "an unknown role" + "{% endif %}{% endfor %}"
)
_OPTIONAL_SYSTEM = (
    "{% if messages and messages[0].role == 'system' %}<system>{{ messages[0].content }}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}"
)
_SYSTEM_IN_USER = (
    "{% if messages and messages[0].role == 'system' %}{% set first = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
)

FAMILIES = {
    "any order": "{% for m in messages %}" + _TURN + "{% endfor %}" + _END,
    "system first only": (
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}" + _SAYS % "System message must be at the beginning"
        + "{% endif %}" + _TURN + "{% endfor %}" + _END
    ),
    "system first only, and a user": (
        "{% if not messages | selectattr('role', 'equalto', 'user') | list %}" + _SAYS % "No user query found" + "{% endif %}"
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}" + _SAYS % "System message must be at the beginning"
        + "{% endif %}" + _TURN + "{% endfor %}" + _END
    ),
    "late system is dropped": (
        "{% for m in messages %}{% if m.role != 'system' or loop.first %}" + _TURN + "{% endif %}{% endfor %}" + _END
    ),
    "no system": (
        "{% for m in messages %}{% if m.role == 'system' %}" + _SAYS % "System role not supported" + "{% endif %}" + _TURN
        + "{% endfor %}" + _END
    ),
    "system is dropped": "{% for m in messages if m.role != 'system' %}" + _TURN + "{% endfor %}" + _END,
    "alternating, no system, no tools": (
        "{% set turns = messages %}{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        + _SAYS % "roles must alternate" + "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}" + _END
    ),
    "alternating, system within the user's first turn": (
        _SYSTEM_IN_USER + "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}" + _SAYS % "roles must alternate"
        + "{% endif %}<{{ m.role }}>{% if loop.first %}{{ first }}{% endif %}{{ m.content }}{% endfor %}" + _END
    ),
    "alternating but for calls, whose text is dropped": (
        "{# <tool_call> #}" + _OPTIONAL_SYSTEM + _ALTERNATE + "{% for m in turns %}{% if m.tool_calls %}" + _CALLS
        + "{% elif m.role == 'tool' %}{% if not m.tool_call_id %}" + _SAYS % "a result needs its id" + "{% endif %}[{{ m.content }}]"
        "{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}" + _END
    ),
    "one call a turn": (
        "{# <tool_call> #}{% for m in messages %}{% if m.tool_calls and m.tool_calls | length != 1 %}"
        + _SAYS % "single tool-calls only" + "{% endif %}{% if m.tool_calls %}<assistant>" + _CALLS + "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _END
    ),
    "results after calls only": (
        "{# <tool_call> #}{% set ns = namespace(called=false) %}{% for m in messages %}{% if m.role == 'tool' and not ns.called %}"
        + _SAYS % "a tool turn without a call" + "{% endif %}{% set ns.called = m.role == 'tool' or m.tool_calls %}" + _TURN + "{% endfor %}" + _END
    ),
    "ends with the user or a tool": (
        "{% if messages[-1].role not in ('user', 'tool') %}" + _SAYS % "the last role must be user or tool" + "{% endif %}"
        "{% for m in messages %}" + _TURN + "{% endfor %}" + _END
    ),
    "parts only": (
        "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
        + _CALLS + "{% endfor %}" + _END
    ),
}  # fmt: skip
