"""Answering a request to improve a prompt: better, worse and broken rewrites.

The writer sees only the request and does not know who asks. It reads what is shown (the prompt, failures, examples,
a critique, other prompts with or without scores), guesses from it what is missing (and is often wrong), and edits
sentences.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from worker.simulator.chance import Dice
from worker.simulator.instructions import read
from worker.simulator.knowledge import known

DROP = 0.05  # chance that a sentence of the parent is lost
EXTRA_EDITS = 0.8  # mean number of edits beyond the first
DISTRACTOR = 0.22  # chance of adding something useless or harmful
BROKEN = 0.06  # chance of losing a placeholder or the tags
LUCKY_GUESS = 0.6  # chance that a symptom is read as what it is
COMBINED = 0.8  # share of another prompt's lines that are taken over

_ASKED = re.compile(
    r"\b(improve|rewrite|rephrase|write|shorten|elaborate|restructure|combine|repair|criticize|work out)\b"
)
_OTHER = re.compile(r"<(?:other|earlier)>\n?(.*?)\n?</(?:other|earlier)>", re.DOTALL)
_PROMPT = re.compile(r"<prompt>\n?(.*?)\n?</prompt>", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)

PHRASES: Mapping[str, Sequence[str]] = {
    "strict_format": (
        "Answer with valid JSON and nothing else.",
        "Return only the JSON object, no other text.",
        "Output valid JSON without any explanation.",
    ),
    "tie_break": (
        "If there is more than one request, go by the main request.",
        "When a text could fit two labels, decide by what the customer wants done.",
        "With several problems in one text, pick the one that blocks their work.",
    ),
    "ignore_noise": (
        "Ignore signatures, greetings, quoted replies and pasted logs.",
        "Disregard quoted mail, footers and disclaimers.",
        "Skip forwarded headers and boilerplate such as signatures.",
    ),
    "tone": (
        "Do not let an angry or polite tone change the answer.",
        "Judge the facts and not the emotion; sarcasm hides real problems.",
        "Capital letters and exclamation marks say nothing about importance.",
    ),
    "careful": (
        "Read the whole text carefully before you answer.",
        "Think about what happened before you answer.",
        "Consider the entire text, to its last line.",
    ),
    "impact": (
        "Use urgent when several people cannot work, data is lost, or a deadline is within a day; high when one "
        "person is fully blocked.",
        "Priority is urgent or high by impact: how many people are blocked, is data lost, is there a deadline.",
    ),
    "workaround": (
        "Use normal when there is a workaround, and low for questions, ideas and cosmetic matters.",
        "A problem with a workaround is normal; curiosity and ideas are low.",
    ),
}
DISTRACTORS = (
    "Be creative and use your own words.",
    "Explain your reasoning in detail.",
    "You are a world-class expert with decades of experience.",
    "This is very important to my career.",
    "Feel free to elaborate at length.",
    "Be friendly and professional.",
)
ELABORATIONS = (
    "Work through the text in the order in which it is written.",
    "Keep in mind that people write in different ways.",
    "Note every fact that the text gives.",
)
_REASONS: Mapping[str, str] = {
    "strict_format": "The prompt does not insist on the format.",
    "tie_break": "It does not say what decides when two answers fit.",
    "ignore_noise": "It does not say which parts of a text to leave out.",
    "tone": "It lets the mood of a text count.",
    "careful": "It does not ask for a close reading.",
    "impact": "It does not say what makes something weigh more.",
    "workaround": "It does not say what makes something weigh less.",
    "list": "It does not name the possible values of {field}.",
    "define": "It does not explain the values of {field}.",
}
DEFINITIONS: Mapping[str, str] = {
    "billing": "charges, invoices, refunds, taxes and payment methods",
    "account_access": "signing in, passwords, two-factor, invitations and roles of users",
    "bug": "something that should work does not, including slowness and lost data",
    "how_to": "asks how to do something that the product can do today",
    "feature_request": "asks for something that the product cannot do today",
    "cancellation": "wants to end, pause or downgrade the subscription",
    "data_privacy": "personal data, deletion or export by law, leaks and security reports",
    "urgent": "several people cannot work, data lost or exposed, or a deadline within a day",
    "high": "one person is fully blocked or money was wrongly taken",
    "normal": "impaired but with a workaround, or an ordinary request",
    "low": "questions of curiosity, ideas and cosmetic matters",
}


def is_rewrite_request(messages: Sequence[Mapping[str, str]]) -> bool:
    """A prompt in <prompt> tags, and words that ask to write a new one or to say what is wrong with it."""
    text = messages[-1]["content"]
    return bool(_PROMPT.search(text)) and bool(_ASKED.search(text.lower()))


def rewrite(messages: Sequence[Mapping[str, str]], dice: Dice) -> str:
    request = messages[-1]["content"]
    shown = _PROMPT.search(request)
    assert shown is not None
    parent = shown.group(1)
    asked = _OTHER.sub("", request.replace(shown.group(0), "")).lower()
    task = request.lstrip().split("\n", 1)[0]  # what follows may quote anything
    if "criticize" in task.lower():
        return _critique(parent, request, dice)
    if "repair" in task.lower():
        return _tagged(_repaired(parent, task), dice)
    plain = {"rephrase": _rephrased, "shorten": _shortened, "elaborate": _elaborated, "restructure": _restructured}
    for word, write in plain.items():
        if word in task.lower():
            return _tagged(write(parent, dice), dice)
    others = [found.split("\n") for found in _OTHER.findall(request)]
    lines = _kept(parent, dice)
    if others:
        lines = _combined(lines, others, dice)
    wanted = _symptoms(request) + _criticized(asked)
    # To combine is not to think of something new; a request with evidence or scores is.
    for i in range(("combine" not in task.lower()) + dice.poisson(EXTRA_EDITS, "edits")):
        lines = _edited(lines, _diagnosis(wanted, lines, dice, i), dice, i)
    if dice.uniform("distractor") < DISTRACTOR:
        lines = _inserted(lines, dice.choice(DISTRACTORS, "which distractor"))
    return _tagged("\n".join(lines), dice)


def _critique(parent: str, request: str, dice: Dice) -> str:
    """The reasons, in words of its own; what it names is what it guesses, as when it rewrites at once."""
    lines = parent.split("\n")
    wanted = _symptoms(request)
    found = dict.fromkeys(_diagnosis(wanted, lines, dice, i) for i in range(1 + dice.poisson(EXTRA_EDITS, "reasons")))
    said = []
    for feature in found:
        kind, _, field = feature.partition(":")
        reason = _REASONS[kind]
        said.append(f"- {reason.format(field=field or 'answer')}")
    return "These are the reasons.\n<reasons>\n" + "\n".join(said) + "\n</reasons>"


def _criticized(asked: str) -> "Counter[str]":
    """What a critique that is shown asks for."""
    found: Counter[str] = Counter()
    fields = list(known().values)
    for kind, reason in _REASONS.items():
        for field in fields if "{field}" in reason else [""]:
            if reason.format(field=field or "answer").lower() in asked:
                found[f"{kind}:{field}" if "{field}" in reason else kind] += 2
    return found


def _repaired(parent: str, task: str) -> str:
    """The prompt with the placeholders that are asked for and missing; what is broken beyond that stays so."""
    missing = [one for one in dict.fromkeys(_PLACEHOLDER.findall(task)) if one not in parent]
    return "\n".join([parent, *missing])


def _combined(lines: list[str], others: Sequence[Sequence[str]], dice: Dice) -> list[str]:
    """Lines of the other prompts that this one has not, most of them; the last other is the best where scores stand."""
    for number, other in enumerate(others):
        share = COMBINED * (number + 1) / len(others)
        for i, line in enumerate(other):
            if line.strip() and not _PLACEHOLDER.search(line) and dice.uniform("take", number, i) < share:
                lines = _inserted(lines, line)
    return lines


def _symptoms(request: str) -> "Counter[str]":
    """What the failures that are shown point at; counts of features."""
    seen: Counter[str] = Counter()
    fields = list(known().values)
    for failure in re.findall(r"(?im)^feedback:(.*)$", request):
        text = failure.lower()
        if "not json" in text or "no json" in text or "not valid json" in text:
            seen["strict_format"] += 1
            continue
        for place, field in enumerate(fields):
            got = re.search(rf"{re.escape(field)}: expected \S+ got ['\"]?([^'\";]+)", text)
            if got and got.group(1).strip() not in known().values[field]:
                seen[f"list:{field}"] += 1
            elif got:
                seen[f"wrong:{place}"] += 1
    return seen


def _diagnosis(symptoms: "Counter[str]", lines: Sequence[str], dice: Dice, turn: int) -> str:
    """One feature to add. A symptom is read rightly with LUCKY_GUESS, else as something that looks alike."""
    content = ("tie_break", "ignore_noise", "careful", "tone")
    weight = ("impact", "workaround", "tone", "careful")
    fields = list(known().values)
    options: list[tuple[str, float]] = [(feature, 0.25) for feature in PHRASES]
    for symptom, count in sorted(symptoms.items()):
        kind, _, rest = symptom.partition(":")
        if kind in ("strict_format", "list"):
            options.append((symptom, count * LUCKY_GUESS))
            options += [(feature, count * (1 - LUCKY_GUESS) / len(content)) for feature in content]
        elif kind != "wrong":  # a critique names it
            options.append((symptom, count * LUCKY_GUESS))
        elif rest == "0":
            options.append((f"define:{fields[0]}", count * LUCKY_GUESS / 2))
            options += [(feature, count * (1 - LUCKY_GUESS / 2) / len(content)) for feature in content]
        else:
            options.append((f"define:{fields[int(rest)]}", count * LUCKY_GUESS / 2))
            options += [(feature, count * (1 - LUCKY_GUESS / 2) / len(weight)) for feature in weight]
    present = read(" ".join(lines)).features
    fresh = [(feature, share * (0.15 if feature in present else 1.0)) for feature, share in options]
    return dice.weighted(fresh, "diagnosis", turn)


def _edited(lines: list[str], feature: str, dice: Dice, turn: int) -> list[str]:
    kind, _, field = feature.partition(":")
    values = known().values.get(field, ())
    if kind == "list":
        return _inserted(lines, f"The {field or 'answer'} is one of: {', '.join(values)}.")
    if kind == "define":
        described = read(" ".join(lines)).defined.get(field, frozenset())
        missing = [value for value in values if value not in described] or list(values)
        shown = [value for value in missing if dice.uniform("define", turn, value) < 0.55] or missing[:1]
        new = [f"- {value}: {DEFINITIONS.get(value, 'texts about ' + value.replace('_', ' '))}" for value in shown]
        return _inserted(lines, "\n".join(new))
    return _inserted(lines, dice.choice(PHRASES[kind], "phrase", turn))


def _inserted(lines: list[str], text: str) -> list[str]:
    """Before the first line that holds a placeholder, so that instructions stay above the input."""
    if any(text in line for line in lines):
        return lines
    for i, line in enumerate(lines):
        if _PLACEHOLDER.search(line):
            at = i - 1 if i > 0 and lines[i - 1].rstrip().endswith(":") else i
            return [*lines[:at], text, *lines[at:]]
    return [*lines, text]


def _kept(parent: str, dice: Dice) -> list[str]:
    return [
        line
        for i, line in enumerate(parent.split("\n"))
        if not line.strip() or _PLACEHOLDER.search(line) or dice.uniform("keep", i) >= DROP
    ]


def _rephrased(parent: str, dice: Dice) -> str:
    """The same instructions in other words, a few of them lost or improved on the way."""
    lines = _kept(parent, dice)
    openings = ("Please note: ", "Your task: ", "Important: ", "")
    at = int(dice.uniform("line") * len(lines))
    if lines and lines[at].strip() and not _PLACEHOLDER.search(lines[at]):
        lines[at] = dice.choice(openings, "opening") + lines[at]
    if dice.uniform("gain") < 0.45:
        lines = _edited(lines, dice.choice(sorted(PHRASES), "feature"), dice, 0)
    return "\n".join(lines)


def _elaborated(parent: str, dice: Dice) -> str:
    """More said, of which something matters half of the time; it grows in any case."""
    lines = _kept(parent, dice)
    if dice.uniform("gain") < 0.5:
        lines = _edited(lines, dice.choice(sorted(PHRASES), "feature"), dice, 0)
    return "\n".join(_inserted(lines, dice.choice(ELABORATIONS, "elaboration")))


def _restructured(parent: str, dice: Dice) -> str:
    """The same lines under a heading and with bullets."""
    lines = []
    for line in _kept(parent, dice):
        plain = (
            not line.strip() or _PLACEHOLDER.search(line) or line.rstrip().endswith(":") or line.startswith(("-", "#"))
        )
        lines.append(line if plain else f"- {line}")
    return "\n".join(["# Instructions", *lines])


def _shortened(parent: str, dice: Dice) -> str:
    lines = parent.split("\n")
    return "\n".join(
        line for i, line in enumerate(lines) if _PLACEHOLDER.search(line) or dice.uniform("short", i) >= 0.25
    )


def _tagged(text: str, dice: Dice) -> str:
    luck = dice.uniform("broken")
    if luck < BROKEN / 2:
        text = _PLACEHOLDER.sub("the text below", text)
    elif luck < BROKEN:
        return f"Here is a better prompt: {text}"
    return f"I changed what the failures point at.\n<prompt>\n{text}\n</prompt>"
