"""Chat templates that want too much. `python -m tests.engines.worker.templates.hostile_templates NAME…` tries some, and says what each took."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path

import psutil

from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.errors import ContextLengthExceeded
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
    "a recursive loop": "{% for a in range(300) recursive %}{% if loop.depth < 9 %}{{ loop(range(300)) }}{% endif %}{% endfor %}",
    "a list that grows": looped("{% set ns.l = ns.l + [i] %}"),
    "lists of long numbers": "{{ [2 ** 8000] * 100000 }}",
    "lists of lists, written": DOUBLED + "{{ ns.l }}",
    "lists of lists, as JSON": DOUBLED + "{{ ns.l | tojson }}",
    "lists of lists, joined": DOUBLED + "{{ '' ~ ns.l }}",
    "lists of lists, formatted": DOUBLED + "{{ '%s' % ns.l }}{{ '{}'.format(ns.l) }}",
    "tuples as keys": looped("{% set ns.x = (ns.x, ns.x) %}", n=60) + "{{ {ns.x: 1} }}",
    "tuples looked up": looped("{% set ns.x = (ns.x, ns.x) %}", n=60) + "{{ {}[ns.x] }}",
    "strip": "{{ (" + LONG + ").strip('b' * 8000000 ~ 'a') }}",
    "trim": "{{ (" + LONG + ") | trim('b' * 8000000 ~ 'a') }}",
    "round": "{{ 1 | round(-1000000000) }}",
    "long powers": looped("{% set ns.x = ns.x * ns.x %}", "7"),
    "tuples in members": looped("{% set ns.x = (ns.x, ns.x) %}", n=60) + "{{ {'a': ns.x}.items() - [1] }}",
    "a huge power": "{{ 10 ** (10 ** 8) }}",
    "numbers as text": looped("{{ (10 ** 4299) ~ '' }}"),
    "groupby": looped("{{ range(99999) | groupby('real') | list | length }}"),
    "sort": looped("{{ range(99999) | map('string') | sort(reverse=true) | join | length }}"),
    "pprint": "{{ ([['a'] * 1000] * 100000) | pprint }}",
    "cyclers kept": looped("{% for k in range(9999) %}{% set ns.l = [ns.l, cycler(1, 2, ns.l)] %}{% endfor %}"),
    "dictsort": looped("{% set ns.x = dict(ns.x, **{'k' ~ i: i}) %}{{ ns.x | dictsort | length }}", "{}"),
    "constant lists": "{{ [[[[[[1] * 99] * 99] * 99] * 99] * 99] * 99 }}",
    "replace that doubles": looped("{% set ns.x = ns.x | replace('a', 'aa') %}", "'a'"),
    "slices of few": "{{ range(10) | slice(99999999) | list | length }}",
    "deep lists, as JSON": looped("{% set ns.l = [ns.l] %}") + "{{ ns.l | tojson }}",
    "deep lists, written": looped("{% set ns.l = [ns.l] %}") + "{{ ns.l }}",
    "deep lists, compared": looped("{% set ns.l = [ns.l] %}{% set ns.m = [ns.m] %}") + "{{ ns.l == ns.m }}",
    "xmlattr": "{{ {'a' * 5000000: 'b' * 50000000} | xmlattr }}",
    "escape in blocks": "{% autoescape true %}{{ '<' * 9000000 ~ messages[0].content | e | forceescape | forceescape | forceescape }}{% endautoescape %}",
    "many attributes": "{{ a" + ".b" * 100000 + " }}",
    "many elifs": "{% if a %}" + "{% elif b %}" * 20000 + "{% endif %}",
    "many filters": "{{ a" + "|trim" * 50000 + " }}",
    "many comparisons": "{{ a" + " < a" * 60000 + " }}",
    "many ~": "{{ a" + " ~ a" * 60000 + " }}",
    "long constants": "{{ " + "'a' * 99999 ~ " * 10000 + "'' }}",
    "many names": "".join(f"{{% set v{i} = v{i-1} %}}" for i in range(11000)),
    "many imports": "{% from 'os' import system %}" * 9000,
}  # fmt: skip
"""Those that take all the time there is, or long to fill the memory."""

REFUSED = {
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a block that shows itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "a block by its name": "{% if false %}{% block b %}{% for i in range(99999) %}" + "y" * 99_999
    + "{% endfor %}{% endblock %}{% endif %}{% set y = self.b() %}",
    "text in a recursive loop": "{% for i in range(99999) recursive %}" + "y" * 99_999 + "{% endfor %}",
    "include": "{% for i in range(99999) %}{% include 'x' ignore missing %}{% endfor %}",
    "~ that doubles": looped("{% set ns.x = ns.x ~ ns.x %}", "'ab'"),
    "+ that doubles": looped("{% set ns.x = ns.x + ns.x %}", "'ab'"),
    "+ of lists": looped("{% set ns.x = ns.x + ns.x %}", "[1]"),
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
    "wide lists, written": "{% set y = '' ~ ['\U000e0001' * 8000000 + '\U0001f600'] %}",
    "wide JSON of lists": "{% set y = ['\x01' * 9000000 + '\U0001f600'] | tojson %}",
    "wide JSON of a text": "{% set y = ('\x01' * 9000000 + '\U0001f600') | tojson %}",
    "wide escape": "{% set y = ('<' * 9000000 + '\U0001f600') | e %}",
    "wide %r": "{% set y = '%r' % ('\U000e0001' * 8000000 + '\U0001f600') %}",
    "wide !r": "{% set y = '{!r}'.format('\U000e0001' * 8000000 + '\U0001f600') %}",
    "lists of lists, sorted": DOUBLED + "{{ [ns.l, ns.x] | sort }}",
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
    "batch": "{{ [1] | batch(1000000000, 1) | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "wide JSON": "{{ [1] | tojson(indent=1000000000) }}",
    "deep wide JSON": "{{ ([[[[1]]]] * 200000) | tojson(indent=900) }}",
    "separators of JSON": "{{ ([1] * 200000) | tojson(separators=('x' * 1000000, ':')) }}",
    "split": "{{ (" + LONG + ").split('a') }}",
    "splitlines": "{{ ('\n' * 16000000).splitlines() }}",
    "list of a text": "{{ ('\u2603' * 16000000) | list }}",
    "title": "{{ ('a ' * 8000000) | title }}",
    "long numbers": "{{ ('9' * 8000000) | int(0, 16) }}",
    "to_bytes": "{{ (1).to_bytes(1000000000) }}",
    "sum of lists": "{{ ([[0] * 1000000] * 1000) | sum(start=[]) }}",
    "strftime": "{{ strftime_now('%Y' * 1000000) }}",
    "stars": "{{ [].index(*('a' * 10000000)) }}",
    "autoescape": "{% autoescape true %}{{ '<' * 16000000 }}{% endautoescape %}",
    "pieces of safe text": "{{ (('a ' * 8000000) | safe).split('a') }}",
    "format of safe text": "{{ ('{:1000000000d}' | safe).format(1) }}",
    "join of safe text": "{{ (('x' * 1000000) | safe).join('a' * 1000000) }}",
    "copied members": looped("{% set ns.l = [ns.l, namespace(ns.x)] %}", "{" + ",".join(f"'a{i}':0" for i in range(3000)) + "}"),
    "escape": looped("{% set ns.x = (ns.x ~ ns.x) | e %}", "'<'"),
    "10 MB": "x" * 10_000_000,
    "many expressions": "{{a}}" * 50_000,
    "deep parentheses": "{{ " + "(" * 20_000 + ")" * 20_000 + " }}",
    "deep ifs": "{% if a %}" * 2000 + "{% endif %}" * 2000,
    "deep sums": "{{ a" + "+a" * 9000 + " }}",
    "deep lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "long digits": "{{ " + "1_" * 120_000 + " }}",
    "two halves of the memory": "{{ ('x' * 60000000) ~ ('y' * 60000000) }}",
    "rjust": "{{ 'a'.rjust(300000000, '\U0001d4b3') }}",
    "zfill": "{{ 'a'.zfill(999999999) }}",
    "macros in macros": "{% macro a() %}{% macro b() %}{{ a() }}{% endmacro %}{{ b() }}{{ b() }}{% endmacro %}{{ a() }}",
    "batch with filling": "{{ [1] | batch(99999999, 'x') | list | length }}",
    "urlize": "{{ ('http://' ~ 'a.' * 2000000 ~ '<' * 100000) | urlize }}",
    "wordwrap": "{{ ('ab ' * 3000000) | wordwrap(1) }}",
    "much put out": looped("{{ 'x' * 1000 }}"),
    "a long refusal": "{{ raise_exception('x' * 100000000) }}",
    "a refusal of a long number": "{{ raise_exception(10 ** 5000) }}",
    "a long name that is missing": "{{ messages[0]['x' * 50000000].y }}",
    "joiners in a loop": "{% set j = joiner('y' * 1000000) %}{% for i in range(99999) %}{{ j() }}{% endfor %}",
    "set blocks that nest": "".join("{% set x %}" for _ in range(90)) + "y" * 1000 + "".join("{{ x }}{{ x }}{% endset %}" for _ in range(90)),
    "translate": "{{ ('a' * 1000000).translate({97: 'b' * 1000}) }}",
    "long join": "{{ range(99999) | join('y' * 100000) }}",
    "indent of a block": "{% filter indent(99999999, true) %}a\nb{% endfilter %}",
    "many nots": "{{ " + "not " * 60000 + "a }}",
    "many conditional expressions": "{{ a" + " if b else a" * 15000 + " }}",
    "deep brackets": "{{ " + "a[" * 30000 + "a" + "]" * 30000 + " }}",
    "deep loops": "{% for a in b %}" * 2000 + "{% endfor %}" * 2000,
    "deep macros": "".join(f"{{% macro m{i}() %}}" for i in range(2000)) + "{% endmacro %}" * 2000,
    "a constant power": "{{ 9 ** 9 ** 9 ** 9 }}{{ 'a' * 999999999 }}",
}  # fmt: skip
"""Those that take memory, or fail by themselves."""

ALLOWED = {
    "a loop over a text": "{% for c in 'a' * 16000000 %}{% endfor %}",
    "lists of lists, compared": DOUBLED + "{{ ns.l == ns.x }}",
    "lists of lists, found": DOUBLED + "{{ ns.l in [ns.x] }}",
    "rfind": "{{ (" + LONG + ").rfind('b' ~ 'a' * 4000000) }}",
    "blocks": "".join(f"{{%block a{i}%}}{{%endblock%}}" for i in range(2800)),
    "expressions": "{{a}}" * 6600,
    "sets in loops": "".join(f"{{%for a{i} in b%}}" for i in range(15))
    + "".join(f"{{%set q{i}=1%}}" for i in range(2700))
    + "{%endfor%}" * 15,
    "sets in ifs": "".join(f"{{%set q{i}=1%}}{{%if q{i}%}}" for i in range(80))
    + "".join(f"{{%set z{i}=1%}}" for i in range(2500))
    + "{%endif%}" * 80,
    "a power that is just short enough": "{{ (7 ** 3999999) % 11 }}",
    "text as a number": "{{ ('9' * 100000000) | float }}",
    "a namespace that holds itself": "{% set ns = namespace() %}{% set ns.a = [ns, ns] %}{{ ns.a }}{{ ns }}",
    "hash collisions": looped("{% set ns.l = ns.l + [i * (2 ** 61 - 1)] %}", n=9999) + looped("") + "{% for i in range(99) %}{{ ns.l | unique | list | length }}{% endfor %}",
    "many texts": "{{ 'a' }}" * 29000,
}  # fmt: skip
"""Those that cost much, and less than they may."""

ALL = BURNING | REFUSED | ALLOWED


def _tried(name: str, renderer: TemplateRenderer) -> dict[str, object]:
    began_s = _cpu_s()
    error = ""
    try:
        template = ChatTemplate(fake_backend(), ALL[name], renderer)
        template.tokenize(ChatPrompt((Message("user", "Hi"),)))
    except (TemplateFailed, ContextLengthExceeded) as exc:
        error = str(exc)
    return {"name": name, "cpu_s": _cpu_s() - began_s, "rss": _peak(psutil.Process()), "error": error}


def _cpu_s() -> float:
    """Processor time of this program and of all that it has started, ended or not."""
    times = os.times()
    running = [child.cpu_times() for child in psutil.Process().children()]
    return sum(times[:4]) + sum(child.user + child.system for child in running)


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
    with contextlib.closing(TemplateRenderer()) as renderer:
        for arg in sys.argv[1:]:
            sys.stdout.write(json.dumps(_tried(arg, renderer)) + "\n")
