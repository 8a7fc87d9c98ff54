"""Prompts that no server can have seen: sentences of common words, drawn by a seeded generator.

Lengths are asked for in tokens and kept in words: tokenizers of current models need about `TOKENS_PER_WORD` for this
text. The true count is what the server reports.
"""

from __future__ import annotations

from random import Random

TOKENS_PER_WORD = 1.13
"""Measured with SmolLM2's tokenizer over 20,000 words of this text, full stops and commas included."""
PROSE_TOKENS_PER_WORD = 1.29
"""The same of `prose`, which has rarer words and more punctuation."""
NONCE_TOKENS = 10


def _list(text: str, separator: str | None = None) -> tuple[str, ...]:
    return tuple(text.replace("\n", " ").split(separator))


_ADJECTIVES = _list("""old quiet narrow bright heavy broken early gentle hollow distant green curious patient loud empty warm
careful sudden ordinary famous wooden northern private simple steep rapid pale honest modern bitter shallow royal
plain clever foreign rusty golden formal hidden silent tired crowded sharp useful strange polite""")

_NOUNS = _list("""captain river market teacher garden engine letter bridge doctor window forest painter station harbour child
machine valley kitchen judge ladder village student clock theatre farmer island library soldier mirror museum tailor
mountain factory neighbour ticket orchard sailor basket printer tower baker engineer carpet lamp poet drummer
telescope bicycle merchant hospital pilot guitar fountain cousin lawyer""")

_VERBS = _list("""found carried watched repaired followed painted described measured opened remembered sold borrowed crossed
studied collected answered avoided visited cleaned counted lifted noticed ordered planned protected reached refused
returned shared started tested trusted turned waited weighed copied defended delivered""")

_PLACES = _list(
    """near the harbour|behind the old mill|at the edge of the field|under the stairs|beside a frozen lake|in the
upper gallery|along the railway|outside the town hall|across the border|inside the workshop|by the northern gate|on the
second floor|between two hills|above the bakery|past the last house""",
    "|",
)

_TIMES = _list(
    """before sunrise|on Monday|in late autumn|after the storm|for three weeks|during the fair|once a year|at
midnight|two days later|that winter|every other evening|in 1912|when the bell rang|without a word""",
    "|",
)

_SHAPES = (
    "The {a} {n} {v} a {b} {m} {p}.",
    "{T}, every {n} {v} the {b} {m}.",
    "No {n} {v} the {m} {t}, and the {a} {x} stayed {p}.",
    "A {b} {m} {p} was what the {n} {v} {t}.",
    "{T} the {n} and the {m} {v} some {a} {x}.",
    "Why the {a} {n} {v} that {m} {t} nobody knew.",
    "It was {p} that my {n} {v} the {x}, {a} and {b}.",
)

_QUESTIONS = (
    "Who {v} the {m}, and why did the {n} not help?",
    "What would a {a} {n} do with the {m} {t}?",
    "Explain how the {n} {v} the {b} {m}.",
    "Is the {a} {m} more important than the {n} {p}?",
    "Tell me what happened to the {n} {p} {t}.",
    "Which {m} belongs to the {a} {n}?",
)

_TASKS = (
    "How do I bake a loaf of bread at home? I have flour, yeast and salt, but only a small oven and a {a} {n}.",
    "What should I pack for three days in the mountains with a {n} when it may rain every afternoon?",
    "My {a} bicycle makes a clicking noise when I brake. Where do I look first, and which tools do I need?",
    "Compare a train and a bus for a {n} who travels two hundred kilometres every week with a {m}.",
    "Write a polite message to a {n} who has not paid for the {a} {m} that was delivered last month.",
    "Which vegetables can be sown in March behind the house of a {n}, and how much water do they need?",
    "Explain to a {n} of ten years why the moon seems to change its shape during one month.",
    "Give me a plan to learn forty words of Spanish in a week, although I work all day as a {n}.",
)

_PROSE = (
    "Rain had fallen on the {a} roofs since Tuesday, and the gutters sang.",
    "Nobody expected the {n} to answer, least of all in French.",
    "Her brother kept {d} postcards in a tin box under the floor.",
    "Steam rose from the soup while the {n} looked for a spoon.",
    "When the lights went out, somebody laughed and dropped a {m}.",
    "Prices doubled within {d} days, yet the queue grew longer.",
    "Two {a} horses stood beneath the chestnut tree, waiting.",
    "He signed his name with a pencil because pens made him nervous.",
    "Behind the {m} lay a map of islands that do not exist.",
    "Snow covered every road except the one to the {n}.",
    "They agreed to meet at platform {d}, where the clock was wrong.",
    "Coffee, she said, should be drunk before any {a} decision.",
    "An owl had made its home in the attic above the {m}.",
    "Most visitors never notice the small door next to the {n}.",
    "Grandfather called it a miracle; the {m} called it bad bookkeeping.",
    "Later that evening, {d} candles were burning along the wall.",
    "If the tide is low, you can walk to the lighthouse with dry shoes.",
    "Some said the {a} song was older than the village itself.",
    "Without warning, the {n} began to dance on the table.",
    "Eleven letters came back unopened, each with a {a} stamp.",
    "Under the bridge, children sold lemonade to tired {n} drivers.",
    "Mathematics had always frightened him more than any {m}.",
    "Perhaps it was the smell of oranges that gave the thief away.",
    "Yesterday's newspaper wrapped around the {m} told another story.",
)

_CODE_NOUNS = _list("item order user line point record token price block event")
_CODE_VERBS = _list("add find make read sort scale merge split check count")
_CODE_NAMES = _list("total result value index limit width rate score weight size")

_CODE = """def {v}_{n}({a}s, {b}={d}):
    kept = []
    for {a} in {a}s:
        if {a} > {b}:
            kept.append({a} - {b})
    return kept
"""


def generator(seed: str) -> Random:
    """What makes prompts: the same text for the same seed."""
    return Random(seed)  # noqa: S311 - prompts, not secrets


def nonce(rng: Random) -> str:
    """The beginning of every prompt: it makes the first tokens differ, so that no cached prefix fits."""
    return f"{rng.choice(_ADJECTIVES).title()} {rng.choice(_NOUNS)} {rng.randrange(10_000, 100_000)}:"


def text(rng: Random, tokens: int) -> str:
    """Sentences of about `tokens` tokens."""
    wanted = max(1, round(tokens / TOKENS_PER_WORD))
    words: list[str] = []
    while len(words) < wanted:
        words += _sentence(rng, _SHAPES).split()
    return " ".join(words[:wanted]).rstrip(".,") + "."


def fresh(rng: Random, tokens: int) -> str:
    """`text` with a nonce before it, the length of both together."""
    start = nonce(rng)
    return f"{start} {text(rng, tokens - NONCE_TOKENS)}"


def prose(rng: Random, tokens: int) -> str:
    """As `fresh`, for 250 tokens at most; no phrase comes twice, so a model that copies it does not lose its place."""
    sentences = [_fill(rng, sentence) for sentence in rng.sample(_PROSE, len(_PROSE))]
    words = f"{nonce(rng)} {' '.join(sentences)}".split()
    return " ".join(words[: round(tokens / PROSE_TOKENS_PER_WORD)]).rstrip(".,;") + "."


def code(rng: Random, count: int) -> tuple[str, str]:
    """`count` functions in Python, of about 45 tokens each, and the name of the first."""
    functions = []
    for verb, noun in zip(rng.sample(_CODE_VERBS, count), rng.sample(_CODE_NOUNS, count), strict=True):
        name, other = rng.sample(_CODE_NAMES, 2)
        functions.append(_CODE.format(v=verb, n=noun, a=name, b=other, d=rng.randrange(10, 100)))
    source = "\n\n".join(functions)
    return source, source.partition("(")[0].removeprefix("def ")


def question(rng: Random) -> str:
    """One short question, about 12 tokens."""
    return _sentence(rng, _QUESTIONS)


def tasks(rng: Random, count: int) -> list[str]:
    """Different everyday questions of about 25 tokens."""
    return [_fill(rng, task) for task in rng.sample(_TASKS, count)]


def _sentence(rng: Random, shapes: tuple[str, ...]) -> str:
    return _fill(rng, rng.choice(shapes))


def _fill(rng: Random, shape: str) -> str:
    time = rng.choice(_TIMES)
    noun, other, third = rng.sample(_NOUNS, 3)
    adjective, second = rng.sample(_ADJECTIVES, 2)
    return shape.format(
        a=adjective,
        b=second,
        n=noun,
        m=other,
        x=third,
        v=rng.choice(_VERBS),
        p=rng.choice(_PLACES),
        d=rng.randrange(12, 100),
        t=time,
        T=time[0].upper() + time[1:],
    )
