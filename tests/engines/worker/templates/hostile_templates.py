"""Chat templates that want too much. `python -m tests.engines.worker.templates.hostile_templates NAME…` tries some, and says what each took."""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from pathlib import Path

import psutil

from kolosal.engines.worker.templates.template import ChatTemplate, TemplateFailed
from kolosal.schema import ChatPrompt, Message
from tests.engines.worker.helpers import fake_backend


def looped(body: str, x: str = "''", n: int = 99_999) -> str:
    """A body so many times, with `ns.x` and `ns.l` to grow."""
    return f"{{% set ns = namespace(x={x}, l=[]) %}}{{% for i in range({n}) %}}{body}{{% endfor %}}"


DOUBLED = looped("{% set ns.l = [ns.l, ns.l] %}{% set ns.x = [ns.x, ns.x] %}", n=60)
"""Small in memory, and endless to read."""

LONG = "'a' * 8000000"

BURNING = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that leave all out": "{% for i in range(9999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "a loop over a text": "{% for c in 'a' * 16000000 %}{% endfor %}",
    "recursion that branches": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "searches": looped("{% set y = 'q' in ns.x %}", LONG),
    "comparisons": f"{{% set a = {LONG} %}}{{% set b = {LONG} %}}" + looped("{% set y = a == b %}"),
    "filters of many": "{{ ([0] * 15000000) | select('odd') | list }}",
    "long paths": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ([ns] * 200000) | map(attribute='a' ~ '.a' * 400) | list }}",
    "namespaces kept": looped(
        "{% for k in range(99999) %}{% set ns.l = [ns.l, namespace(a=1)] %}{% endfor %}"
    ),
    "macros kept": looped(
        "{% for k in range(999) %}{% macro f(a) %}{% endmacro %}{% set ns.l = [ns.l, f] %}{% endfor %}"
    ),
}
"""Those that take all the time there is."""

REFUSED = {
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a block that shows itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "a block by its name": "{% if false %}{% block b %}{% for i in range(99999) %}" + "y" * 99_999
    + "{% endfor %}{% endblock %}{% endif %}{% set y = self.b() %}",
    "a recursive loop": "{% for a in range(300) recursive %}{% if loop.depth < 9 %}{{ loop(range(300)) }}{% endif %}{% endfor %}",
    "text in a recursive loop": "{% for i in range(99999) recursive %}" + "y" * 99_999 + "{% endfor %}",
    "include": "{% for i in range(99999) %}{% include 'x' ignore missing %}{% endfor %}",
    "~ that doubles": looped("{% set ns.x = ns.x ~ ns.x %}", "'ab'"),
    "+ that doubles": looped("{% set ns.x = ns.x + ns.x %}", "'ab'"),
    "+ of lists": looped("{% set ns.x = ns.x + ns.x %}", "[1]"),
    "a list that grows": looped("{% set ns.l = ns.l + [i] %}"),
    "a block that doubles": looped(
        "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}", "'ab'"
    ),
    "text in a block": "{% set x %}{% for i in range(99999) %}" + "y" * 99_999 + "{% endfor %}{% endset %}",
    "text in a macro": "{% macro f() %}{% for i in range(99999) %}" + "y" * 99_999 + "{% endfor %}{% endmacro %}{{ f() }}",
    "text in a filter": "{% filter trim %}{% for i in range(99999) %}" + "y" * 99_999 + "{% endfor %}{% endfilter %}",
    "text in a caller": "{% macro f() %}{% for i in range(99999) %}{{ caller() }}{% endfor %}{% endmacro %}{% call f() %}"
    + "y" * 99_999 + "{% endcall %}",
    "text in a block within a macro": "{% macro f() %}{% block b %}{% for i in range(99999) %}" + "y" * 99_999
    + "{% endfor %}{% endblock %}{% endmacro %}{{ f() }}",
    "text beside a wide character": "{% set x %}\U0001f600{% for i in range(1200) %}" + "y" * 99_999 + "{% endfor %}{% endset %}",
    "values beside a wide character": "{% set y = 'y' * 1000000 %}{% set x %}\U0001f600{% for i in range(110) %}{{ y }}"
    "{% endfor %}{% endset %}",
    "text": "{% for i in range(99999) %}" + "y" * 99_999 + "{% endfor %}",
    "defaults kept": "{% set ns = namespace(l=[]) %}{% macro f(a=[" + "0," * 5000 + "]) %}{% set ns.l = [ns.l, a] %}{% endmacro %}"
    "{% for i in range(15000) %}{% set y = f() %}{% endfor %}",
    "what conditions of loops make": "{% set ns = namespace(l=[]) %}{% macro f(a) %}{% set ns.l = [ns.l, a] %}{% endmacro %}"
    "{% for i in range(15000) if f([" + "0," * 5000 + "]) %}{% endfor %}",
    "arguments kept": "{% set ns = namespace(l=[]) %}{% macro f() %}{% set ns.l = [ns.l, varargs] %}{% endmacro %}"
    "{% for i in range(15000) %}{% set y = f(" + "0," * 5000 + "0) %}{% endfor %}",
    "arguments of filters kept": looped("{% set ns.l = [ns.l, [] | map('join', " + "0," * 5000 + "0)] %}"),
    "names kept by macros": "{% set ns = namespace(l=[]) %}{% for q in [1] %}" + "".join(f"{{%set a{i}=1%}}" for i in range(1800))
    + "{% for i in range(30000) %}{% macro f() %}" + "".join(f"{{{{a{i}}}}}" for i in range(1800))
    + "{% endmacro %}{% set ns.l = [ns.l, f] %}{% endfor %}{% endfor %}",
    "macros with long names": "{% macro " + "f" * 100_000 + "() %}{% endmacro %}{% set y = '' ~ ([" + "f" * 100_000 + "] * 10000) %}",
    "lists of long numbers": "{{ [2 ** 8000] * 100000 }}",
    "wide lists, written": "{% set y = '' ~ ['\U000e0001' * 8000000 + '\U0001f600'] %}",
    "wide JSON of lists": "{% set y = ['\x01' * 9000000 + '\U0001f600'] | tojson %}",
    "wide JSON of a text": "{% set y = ('\x01' * 9000000 + '\U0001f600') | tojson %}",
    "wide escape": "{% set y = ('<' * 9000000 + '\U0001f600') | e %}",
    "wide %r": "{% set y = '%r' % ('\U000e0001' * 8000000 + '\U0001f600') %}",
    "wide !r": "{% set y = '{!r}'.format('\U000e0001' * 8000000 + '\U0001f600') %}",
    "lists of lists, written": DOUBLED + "{{ ns.l }}",
    "lists of lists, as JSON": DOUBLED + "{{ ns.l | tojson }}",
    "lists of lists, compared": DOUBLED + "{{ ns.l == ns.x }}",
    "lists of lists, found": DOUBLED + "{{ ns.l in [ns.x] }}",
    "lists of lists, sorted": DOUBLED + "{{ [ns.l, ns.x] | sort }}",
    "lists of lists, joined": DOUBLED + "{{ '' ~ ns.l }}",
    "lists of lists, formatted": DOUBLED + "{{ '%s' % ns.l }}{{ '{}'.format(ns.l) }}",
    "tuples as keys": looped("{% set ns.x = (ns.x, ns.x) %}", n=60) + "{{ {ns.x: 1} }}",
    "tuples looked up": looped("{% set ns.x = (ns.x, ns.x) %}", n=60) + "{{ {}[ns.x] }}",
    "long lists kept": looped("{% set ns.l = [ns.l, [" + "0," * 5000 + "]] %}"),
    "slices kept": looped("{% set ns.l = [ns.l, ns.x[1:]] %}", "'a' * 1000000"),
    "pieces kept": looped("{% set ns.l = [ns.l, ns.x.split()] %}", "'a b ' * 9999"),
    "ranges kept": looped("{% set ns.l = [ns.l, range(99999) | list] %}"),
    "wide %": "{{ '%1000000000d' % 1 }}",
    "wide %*": "{{ '%*d' % (1000000000, 1) }}",
    "precise %": "{{ '%.1000000000f' % 1 }}",
    "wide % of a key in brackets": "{{ '%((a))2000000000d' % {'(a)': 1} }}",
    "wide % of a key with %": "{{ '%(a%)2000000000d' % {'a%': 1} }}",
    "wide % of a key": "{{ '%(a)2000000000d' | format(a=1) }}",
    "many %": "{{ ('%999d' * 1000000) % 1 }}",
    "many long %": "{{ ('%s' * 1000) % (" + LONG + ") }}",
    "wide format": "{{ '{:1000000000d}'.format(1) }}",
    "wide nested format": "{{ '{:{}}'.format(1, 1000000000) }}",
    "wide named format": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "long format": "{{ ('{0}' * 1000000).format('x' * 1000000) }}",
    "wide filter format": "{{ ['%1000000000d'] | map('format', 1) | list }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "expandtabs": "{{ ('\t' * 1000).expandtabs(10000000) }}",
    "encode": "{{ ('a' * 100000).encode('punycode') }}",
    "replace": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "replace of nothing": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "join": "{{ ('a' * 1000000) | join('b' * 1000000) }}",
    "join of what is selected": "{{ ''.join((['x' * 1000000] * 100000) | select) }}",
    "indent": "{{ 'a' | indent(1000000000) }}",
    "indent of lines": "{{ ('a\n' * 1000000) | indent('x' * 100000) }}",
    "wordwrap": "{{ ('a ' * 4000000) | wordwrap }}",
    "batch": "{{ [1] | batch(1000000000, 1) | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "wide JSON": "{{ [1] | tojson(indent=1000000000) }}",
    "deep wide JSON": "{{ ([[[[1]]]] * 200000) | tojson(indent=900) }}",
    "separators of JSON": "{{ ([1] * 200000) | tojson(separators=('x' * 1000000, ':')) }}",
    "split": "{{ (" + LONG + ").split('a') }}",
    "splitlines": "{{ ('\n' * 16000000).splitlines() }}",
    "list of a text": "{{ ('\u2603' * 16000000) | list }}",
    "title": "{{ ('a ' * 8000000) | title }}",
    "strip": "{{ (" + LONG + ").strip('b' * 8000000 ~ 'a') }}",
    "trim": "{{ (" + LONG + ") | trim('b' * 8000000 ~ 'a') }}",
    "rfind": "{{ (" + LONG + ").rfind('b' ~ 'a' * 4000000) }}",
    "round": "{{ 1 | round(-1000000000) }}",
    "long numbers": "{{ ('9' * 8000000) | int(0, 16) }}",
    "long powers": looped("{% set ns.x = ns.x * ns.x %}", "7"),
    "long shifts": "{{ 2 ** 16000 * 2 ** 16000 }}",
    "to_bytes": "{{ (1).to_bytes(1000000000) }}",
    "sum of lists": "{{ ([[0] * 1000000] * 1000) | sum(start=[]) }}",
    "strftime": "{{ strftime_now('%Y' * 1000000) }}",
    "stars": "{{ [].index(*('a' * 10000000)) }}",
    "autoescape": "{% autoescape true %}{{ '<' * 16000000 }}{% endautoescape %}",
    "pieces of safe text": "{{ (('a ' * 8000000) | safe).split('a') }}",
    "format of safe text": "{{ ('{:1000000000d}' | safe).format(1) }}",
    "join of safe text": "{{ (('x' * 1000000) | safe).join('a' * 1000000) }}",
    "tuples in members": looped("{% set ns.x = (ns.x, ns.x) %}", n=60) + "{{ {'a': ns.x}.items() - [1] }}",
    "copied members": looped("{% set ns.l = [ns.l, namespace(ns.x)] %}", "{" + ",".join(f"'a{i}':0" for i in range(3000)) + "}"),
    "escape": looped("{% set ns.x = (ns.x ~ ns.x) | e %}", "'<'"),
    "hooks that give back": looped(
        "{% set y = [-1000000000] | map('!body') | list %}{% set ns.x = ns.x ~ ns.x %}", "'ab'"
    ),
    "counts that give back": looped(
        "{% set y = [[0]] | map('!counted', -1000000000) | map('list') | list %}{% set ns.x = ns.x ~ ns.x %}", "'ab'"
    ),
    "10 MB": "x" * 10_000_000,
    "many expressions": "{{a}}" * 50_000,
    "deep parentheses": "{{ " + "(" * 20_000 + ")" * 20_000 + " }}",
    "deep ifs": "{% if a %}" * 2000 + "{% endif %}" * 2000,
    "deep sums": "{{ a" + "+a" * 9000 + " }}",
    "deep lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "long digits": "{{ " + "1_" * 120_000 + " }}",
}  # fmt: skip
"""Those that are found out early."""

COMPILED = {
    "blocks": "".join(f"{{%block a{i}%}}{{%endblock%}}" for i in range(2800)),
    "expressions": "{{a}}" * 6600,
    "sets in loops": "".join(f"{{%for a{i} in b%}}" for i in range(15))
    + "".join(f"{{%set q{i}=1%}}" for i in range(2700))
    + "{%endfor%}" * 15,
    "sets in ifs": "".join(f"{{%set q{i}=1%}}{{%if q{i}%}}" for i in range(80))
    + "".join(f"{{%set z{i}=1%}}" for i in range(2500))
    + "{%endif%}" * 80,
}
"""Those that only take long to compile."""

ALL = BURNING | REFUSED | COMPILED


def _tried(name: str) -> dict[str, object]:
    process = psutil.Process()
    gc.collect()  # each template has a worker of its own
    began_s = time.process_time()
    error = ""
    try:
        ChatTemplate(fake_backend(), ALL[name]).tokenize(ChatPrompt((Message("user", "Hi"),)))
    except TemplateFailed as exc:
        error = str(exc)
    taken_s = time.process_time() - began_s
    return {"name": name, "cpu_s": taken_s, "rss": _peak(process), "error": error}


def _peak(process: psutil.Process) -> int:
    """The most memory this program ever had."""
    if sys.platform == "win32":
        return int(process.memory_info().peak_wset)
    status = Path("/proc/self/status")
    if status.exists():  # what rusage says includes the process that started this one
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return 1024 * int(found[1]) if found else 0
    import resource  # noqa: PLC0415 - not there on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"rss": _peak(psutil.Process())}) + "\n")
    for arg in sys.argv[1:]:
        sys.stdout.write(json.dumps(_tried(arg)) + "\n")
