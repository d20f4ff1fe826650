"""Suggestions: rules that look at the text of a prompt and say what is likely to go wrong, and why.

Each rule is a function from a draft to findings. They read; nothing is executed, stored or asked of a model.
docs/reference/suggestions.md lists them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import prompts
from shared.models import Model, Version

SEVERITIES = ("error", "warning", "info")
MOST_OF_A_RULE = 20
CHARACTERS_PER_TOKEN = 4  # a rule of thumb for English; no tokenizer is asked
LONG_PROMPT_TOKENS = 8_000
RESERVED_OUTPUT_TOKENS = 1_024


@dataclass(frozen=True)
class Part:
    """One text of a prompt: where it stands in the content, who speaks, and the text without its expressions."""

    pointer: str
    role: str
    source: str
    words: str  # expressions and comments blanked, so that places stay


@dataclass(frozen=True)
class Draft:
    parts: Sequence[Part]
    is_chat: bool
    used: frozenset[str]
    declared: frozenset[str] | None = None  # None: nobody said what will be given
    has_schema: bool = False
    model_name: str | None = None
    context_tokens: int | None = None
    output_tokens: int = RESERVED_OUTPUT_TOKENS


@dataclass(frozen=True)
class Finding:
    """Where in a part (a place in its text), and what is wrong there."""

    part: Part
    at: int
    reason: str
    severity: str = ""  # "": that of the rule


@dataclass(frozen=True)
class Suggestion:
    rule: str
    severity: str
    pointer: str
    line: int
    reason: str
    example: str


@dataclass(frozen=True)
class Rule:
    severity: str
    example: str
    find: Callable[[Draft], Iterator[Finding]]


def draft_of(
    session: Session,
    body: Mapping[str, Any],
    *,
    declared: Sequence[str] | None = None,
    schema: Any = None,
) -> Draft:
    """A content as the rules see it. What is declared and the schema may stand in the content itself."""
    parts = [_part(body, place, message) for place, message in enumerate(prompts.message_templates(body))]
    settings = body.get("model") or {}
    context = session.scalar(
        sa.select(Model.max_tokens).where(
            Model.provider == settings.get("provider", ""), Model.model_name == settings.get("model_name", "")
        )
    )
    names = declared if declared is not None else _declared(body)
    return Draft(
        [part for part in parts if part.source],
        "messages" in body,
        frozenset(prompts.variables_of(body)),
        None if names is None else frozenset(names),
        bool(schema or body.get("response_schema")),
        settings.get("model_name"),
        context,
        settings.get("params", {}).get("max_new_tokens", RESERVED_OUTPUT_TOKENS),
    )


def suggestions_for(session: Session, version: Version) -> list[Suggestion]:
    return suggest(draft_of(session, version.content))


def suggest(draft: Draft) -> list[Suggestion]:
    """What every rule found, the gravest first; at most 20 findings of one rule."""
    found = [
        Suggestion(
            name,
            finding.severity or rule.severity,
            finding.part.pointer,
            finding.part.source.count("\n", 0, finding.at) + 1,
            finding.reason,
            rule.example,
        )
        for name, rule in RULES.items()
        for finding in islice(rule.find(draft), MOST_OF_A_RULE)
    ]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


_OPENING = re.compile(r"\{[{%#]")
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}
_OUTPUT = re.compile(r"\{\{-?\s*([A-Za-z]\w*+)[^{}]*+\}\}")  # possessive: no text makes it slow


def _part(body: Mapping[str, Any], place: int, message: Mapping[str, Any]) -> Part:
    source = str(message.get("content") or "")
    pointer = "/template_source" if "template_source" in body else f"/messages/{place}/content"
    return Part(pointer, str(message.get("role") or ""), source, _without_expressions(source))


def _without_expressions(source: str) -> str:
    """The source with its expressions blanked. Not by one pattern: a text of openings would take it hours."""
    pieces, at, unclosed = [], 0, set()
    while opening := _OPENING.search(source, at):
        closing = _CLOSING[opening[0]]
        end = -1 if closing in unclosed else source.find(closing, opening.end())
        if end < 0:
            unclosed.add(closing)
            pieces.append(source[at : opening.end()])
            at = opening.end()
        else:
            pieces += source[at : opening.start()], _blank(source[opening.start() : end + 2])
            at = end + 2
    return "".join([*pieces, source[at:]])


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _declared(body: Mapping[str, Any]) -> Sequence[str] | None:
    """The names of a JSON Schema for the variables, if the content carries one."""
    schema = body.get("variables_schema") or body.get("variables")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return list(properties) if isinstance(properties, Mapping) else None


def _matches(draft: Draft, pattern: re.Pattern[str]) -> Iterator[tuple[Part, re.Match[str]]]:
    for part in draft.parts:
        for match in pattern.finditer(part.words):
            yield part, match


def _first(draft: Draft, pattern: re.Pattern[str]) -> tuple[Part, re.Match[str]] | None:
    """The first match that is not denied: of "do not be brief", `brief` is none."""
    for part, match in _matches(draft, pattern):
        if not _DENIED.search(part.words[max(0, match.start() - 30) : match.start()]):
            return part, match
    return None


def _whole(draft: Draft, reason: str, severity: str = "") -> Iterator[Finding]:
    """A finding about the prompt as a whole stands at its last text, where the instructions end."""
    if draft.parts:
        yield Finding(draft.parts[-1], 0, reason, severity)


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


_DENIED = re.compile(r"\b(?:not|never|no|avoid|without|n't|too|less)\s+(?:\w+\s+){0,2}$|n't\s+(?:\w+\s+){0,2}$", re.I)
_WORD = re.compile(r"[^\W\d_]{2,}")
_JSON = _words(r"json")
_LIKE_JSON = re.compile(r"[\[{]")


def _undeclared_variables(draft: Draft) -> Iterator[Finding]:
    if draft.declared is None:
        return
    for name in sorted(draft.used - draft.declared):
        yield Finding(*_place_of(draft, name), f"the variable {name} is used and not declared: a run without it fails")


def _unused_variables(draft: Draft) -> Iterator[Finding]:
    for name in sorted((draft.declared or frozenset()) - draft.used):
        yield from _whole(draft, f"the variable {name} is declared and not used: what is given for it changes nothing")


def _place_of(draft: Draft, name: str) -> tuple[Part, int]:
    pattern = re.compile(rf"\{{[{{%][^{{}}]*\b{re.escape(name)}\b")
    for part in draft.parts:
        match = pattern.search(part.source)
        if match:
            return part, match.start()
    return draft.parts[-1], 0


_FORMAT = _words(
    r"json|xml|yaml|csv|markdown|html|format(?:ted)?|schema|bullet(?:ed|s)?|bullet points?|numbered|table|lists?"
    r"|(?:one|two|three|a single|a few|\d+) (?:word|sentence|paragraph|line|character|bullet|step|item)s?"
    r"|(?:reply|respond|answer|return|output|write|give|print) (?:with|only|in|as|just|exactly)"
    r"|only (?:the|a|with)|yes or no|true or false|in the form|template below|structure"
)


def _no_output_format(draft: Draft) -> Iterator[Finding]:
    if not draft.has_schema and _has_words(draft) and not any(_matches(draft, _FORMAT)):
        yield from _whole(
            draft, "nothing says what the answer should look like: its length and form are left to chance"
        )


def _has_words(draft: Draft) -> bool:
    return any(_matches(draft, _WORD))


_CONTRADICTIONS = (
    (
        _words(r"brief(?:ly)?|concise(?:ly)?|terse(?:ly)?|keep it short|as short as possible|succinct(?:ly)?"),
        _words(r"in (?:great |full )?detail|detailed|thorough(?:ly)?|comprehensive(?:ly)?|at length|elaborate"),
    ),
    (
        _words(r"(?:one|a single) word|(?:one|a single) sentence|only the (?:label|category|number|name)"),
        _words(r"step by step|explain (?:your|why|how)|show your (?:work|reasoning)|justify"),
    ),
    (
        _words(r"(?:only|valid|strict) json|json only|nothing but json"),
        _words(r"plain text|in prose|as markdown|in markdown|full sentences"),
    ),
    (_words(r"formal(?:ly)?"), _words(r"informal(?:ly)?|casual(?:ly)?|slang|colloquial(?:ly)?")),
    (
        _words(r"(?:do not|don't|never|without|no) (?:explain(?:ing)?|explanations?|comment(?:s|ary)?)"),
        _words(r"explain (?:your|why|how)|give (?:your )?reasons|justify|with an explanation"),
    ),
)
_ALWAYS = re.compile(r"\balways\s+(\w+(?:\s+\w+)?)", re.IGNORECASE)
_NEVER = re.compile(r"\b(?:never|do not|don't)\s+(\w+(?:\s+\w+)?)", re.IGNORECASE)


def _contradictory_instructions(draft: Draft) -> Iterator[Finding]:
    for one, other in _CONTRADICTIONS:
        here, there = _first(draft, one), _first(draft, other)
        if here and there:
            yield Finding(*_at(there), f'"{there[1][0]}" contradicts "{here[1][0]}"')
    demanded = {match[1].lower(): match[0] for _, match in _matches(draft, _ALWAYS)}
    for part, match in _matches(draft, _NEVER):
        if match[1].lower() in demanded:
            yield Finding(part, match.start(), f'"{match[0]}" contradicts "{demanded[match[1].lower()]}"')


def _at(found: tuple[Part, re.Match[str]]) -> tuple[Part, int]:
    return found[0], found[1].start()


_PAIRS = {'"': '"', "'": "'", "`": "`", "(": ")", "[": "]", "{": "}", "<": ">", ">": "<", "“": "”", "«": "»", "|": "|"}


def _undelimited_variables(draft: Draft) -> Iterator[Finding]:
    for part in draft.parts:
        seen = set()
        for match in _OUTPUT.finditer(part.source):
            before = part.source[max(0, match.start() - 200) : match.start()].rpartition("\n")[2]
            after = part.source[match.end() : match.end() + 200].partition("\n")[0]
            # On a line of its own, or after a heading, it cannot be taken for the end of a sentence of ours.
            alone = not after.strip() and (
                not before.strip() or before.rstrip().endswith((":", "=", "#", "-", "*", ">"))
            )
            enclosed = before[-1:] in _PAIRS and after[:1] == _PAIRS[before[-1:]]
            if alone or enclosed or match[1] in seen:
                continue
            seen.add(match[1])
            yield Finding(
                part,
                match.start(),
                f"{match[1]} stands among the instructions: a value that gives orders reads like them",
            )


_EXAMPLE_ANSWER = re.compile(
    r"^[ \t>*-]*(?:output|answer|response|assistant|result|a)[ \t]*:[ \t]*(\S.*)$", re.I | re.M
)


def _example_formats(draft: Draft) -> Iterator[Finding]:
    if not any(_matches(draft, _JSON)):
        return
    reason = "JSON is asked for and this example is none: models follow examples rather than words"
    for part in draft.parts:
        if part.role == "assistant" and part.words.strip() and not _LIKE_JSON.match(part.words.lstrip()):
            yield Finding(part, 0, reason)
        for match in _EXAMPLE_ANSWER.finditer(part.source):
            text = match[1].lstrip("`").removeprefix("json").strip()
            if text and not _LIKE_JSON.match(text):
                yield Finding(part, match.start(), reason)


def _long_prompts(draft: Draft) -> Iterator[Finding]:
    tokens = sum(len(part.source) for part in draft.parts) // CHARACTERS_PER_TOKEN
    context = draft.context_tokens
    if context is not None and tokens + draft.output_tokens > context:
        reason = (
            f"about {tokens:,} tokens and {draft.output_tokens:,} of answer pass the {context:,} of {draft.model_name}"
        )
        yield from _whole(draft, reason, "error")
    elif context is not None and tokens > context // 2:
        yield from _whole(draft, f"about {tokens:,} tokens are more than half of what {draft.model_name} can read")
    elif context is None and tokens > LONG_PROMPT_TOKENS:
        reason = (
            f"about {tokens:,} tokens are paid for with every call, and what stands in the middle is followed least"
        )
        yield from _whole(draft, reason, "info")


_SENTENCE = re.compile(r"[^.!?\n]+")


def _repeated_sentences(draft: Draft) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for part, match in _matches(draft, _SENTENCE):
        sentence = " ".join(match[0].lower().split())
        if len(sentence.split()) < 5:
            continue
        if sentence in seen:
            yield Finding(
                part, match.start() + len(match[0]) - len(match[0].lstrip()), f'says again: "{sentence[:80]}"'
            )
        seen[sentence] = match.start()


_LEFTOVER = re.compile(
    r"\b(?:TODO|FIXME|XXX|TBD)\b|\b[Ll]orem ipsum\b|[\[<](?:insert|your|add|fill in|replace)\b[^\]>\n]{0,60}[\]>]"
    r"|\b(?:INSERT|YOUR)_[A-Z_]+\b|\bfoo ?bar\b"
)


def _leftovers(draft: Draft) -> Iterator[Finding]:
    for part, match in _matches(draft, _LEFTOVER):
        yield Finding(part, match.start(), f'"{match[0][:40]}" looks like something that was to be replaced')


_NEGATIVE = _words(r"do not|don't|never|avoid|must not|mustn't|cannot|should not|shouldn't|no longer|without|refrain")
_IMPERATIVE = _words(
    r"write|reply|respond|answer|return|output|give|list|summari[sz]e|translate|classify|extract|explain|describe"
    r"|say|use|include|keep|make|create|generate|compare|choose|pick|rewrite|find|decide|act|you are|must|should"
    r"|always|only"
)


def _only_negative(draft: Draft) -> Iterator[Finding]:
    negative: list[tuple[Part, int]] = []
    for part, match in _matches(draft, _SENTENCE):
        denied = _NEGATIVE.search(match[0])
        if denied:
            negative.append((part, match.start() + denied.start()))
        elif _IMPERATIVE.search(match[0]):
            return
    if len(negative) >= 2:
        yield Finding(*negative[0], "all instructions say what not to do, and none what to do instead")


_TAG = re.compile(r"<(/?)([A-Za-z][\w-]*)(?:\s[^<>\n]*)?(?<!/)>")
_VOID_TAGS = frozenset("br hr img input meta link".split())
_BRACKETS = {"}": "{", "]": "[", ")": "("}
_NOT_A_BRACKET = re.compile(r"[:;=8][-o]?[()\[\]]|^[ \t]*(?:\d+|[a-zA-Z])\)", re.MULTILINE)  # smileys, and `1)`


def _unbalanced(draft: Draft) -> Iterator[Finding]:
    for part in draft.parts:
        yield from _unbalanced_brackets(part)
        yield from _unbalanced_tags(part)
        if part.words.count("```") % 2:
            yield Finding(part, part.words.rindex("```"), "a code fence ``` is opened and not closed")
        quotes = [place for place, character in enumerate(part.words) if character == '"']
        if len(quotes) % 2:
            yield Finding(part, quotes[-1], 'a quotation mark " has no other')


def _unbalanced_brackets(part: Part) -> Iterator[Finding]:
    text = _NOT_A_BRACKET.sub(lambda match: _blank(match[0]), part.words)
    opened: list[int] = []
    for place, character in enumerate(text):
        if character in "{[(":
            opened.append(place)
        elif character in _BRACKETS:
            if not opened or text[opened[-1]] != _BRACKETS[character]:
                yield Finding(part, place, f"{character} closes what was not opened")
                return
            opened.pop()
    if opened:
        yield Finding(part, opened[-1], f"{text[opened[-1]]} is opened and not closed")


def _unbalanced_tags(part: Part) -> Iterator[Finding]:
    tags = [(match[1], match[2], match.start()) for match in _TAG.finditer(part.words)]
    closed = {name for slash, name, _ in tags if slash}
    opened: list[tuple[str, int]] = []
    for slash, name, place in tags:
        if name.lower() in _VOID_TAGS or (not slash and name not in closed and _is_a_placeholder(part, place)):
            continue
        if not slash:
            opened.append((name, place))
        elif opened and opened[-1][0] == name:
            opened.pop()
        else:
            yield Finding(part, place, f"</{name}> closes what was not opened")
            return
    if opened:
        yield Finding(part, opened[-1][1], f"<{opened[-1][0]}> is opened and not closed")


def _is_a_placeholder(part: Part, place: int) -> bool:
    """`Category: <category>` describes an answer; a tag that opens a block begins its line."""
    return bool(part.words[max(0, place - 200) : place].rpartition("\n")[2].strip())


_NAMED_KEYS = re.compile(r"[\"'`]\w[\w -]*[\"'`]\s*:|\b(?:keys?|fields?|properties|schema|array of|list of)\b", re.I)


def _json_without_schema(draft: Draft) -> Iterator[Finding]:
    asked = _first(draft, _JSON)
    if asked and not draft.has_schema and not any(_NAMED_KEYS.search(part.source) for part in draft.parts):
        yield Finding(
            *_at(asked), "JSON is asked for, and nothing says which keys it has: every call may choose others"
        )


_SPEAKER = re.compile(r"^[ \t]*(?:#+ *)?(system|assistant)[ \t]*:", re.IGNORECASE | re.MULTILINE)


def _role_confusion(draft: Draft) -> Iterator[Finding]:
    if not draft.is_chat:
        return
    for place, part in enumerate(draft.parts):
        if part.role == "system" and place > 0:
            yield Finding(part, 0, "a system message that does not come first: some models refuse it, others ignore it")
        if part.role == "user":
            for match in _SPEAKER.finditer(part.words):
                yield Finding(
                    part, match.start(), f'"{match[1]}:" within a user message plays a role that is not the user\'s'
                )
    if draft.parts and draft.parts[-1].role == "assistant":
        yield Finding(draft.parts[-1], 0, "the assistant speaks last: there is nothing for the model to answer")
    if draft.parts and all(part.role == "system" for part in draft.parts):
        yield Finding(draft.parts[-1], 0, "there is no user message: some models answer none but a user")


_VAGUE = _words(r"etc|and so on|as needed|if necessary|as appropriate|somehow|stuff|things like that|and the like")


def _vague_wording(draft: Draft) -> Iterator[Finding]:
    for part, match in _matches(draft, _VAGUE):
        yield Finding(part, match.start(), f'"{match[0]}" leaves to the model what belongs there')


def _no_instructions(draft: Draft) -> Iterator[Finding]:
    if draft.parts and draft.used and not _has_words(draft):
        yield from _whole(draft, "the prompt is nothing but variables: whoever fills them says what the model does")


_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")


def _hidden_characters(draft: Draft) -> Iterator[Finding]:
    for part in draft.parts:
        for match in _HIDDEN.finditer(part.source):
            if match[0] != "\u200d":  # it joins emoji
                reason = (
                    f"U+{ord(match[0]):04X} cannot be seen: who reviews the prompt reads another text than the model"
                )
                yield Finding(part, match.start(), reason)


_SECRET = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|pm_[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|xox[abpr]-[\w-]{20,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


def _secrets(draft: Draft) -> Iterator[Finding]:
    for part in draft.parts:
        for match in _SECRET.finditer(part.source):
            yield Finding(
                part, match.start(), f'"{match[0][:7]}…" looks like a key: every version and every call keeps it'
            )


_SINGLE_BRACE = re.compile(r"(?<![{$\"'])\{([A-Za-z_]\w{0,40})\}(?!\})")


def _single_braces(draft: Draft) -> Iterator[Finding]:
    for part, match in _matches(draft, _SINGLE_BRACE):
        yield Finding(part, match.start(), f"{match[0]} is sent as it stands: a variable has two braces on each side")


RULES: Mapping[str, Rule] = {
    "undeclared_variable": Rule("warning", "declare it, or take it out of the template", _undeclared_variables),
    "unused_variable": Rule(
        "warning", "use {{ name }} where the value belongs, or declare it no more", _unused_variables
    ),
    "no_output_format": Rule("info", "Reply with one sentence of at most 20 words.", _no_output_format),
    "contradictory_instructions": Rule("warning", "keep the one that matters: Be brief.", _contradictory_instructions),
    "undelimited_variable": Rule("warning", "<ticket>\n{{ ticket }}\n</ticket>", _undelimited_variables),
    "example_format": Rule("warning", 'Output: {"category": "billing"}', _example_formats),
    "long_prompt": Rule(
        "warning", "move what few calls need into a variable, or choose a model that reads more", _long_prompts
    ),
    "repeated_sentence": Rule("info", "say it once, where it matters", _repeated_sentences),
    "placeholder_leftover": Rule("error", "write what belongs there, or make it a variable: {{ name }}", _leftovers),
    "only_negative": Rule("info", "instead of “Do not be rude.”: Answer politely.", _only_negative),
    "unbalanced_delimiters": Rule("warning", "<ticket>…</ticket>", _unbalanced),
    "json_without_schema": Rule(
        "warning", 'Reply with JSON like {"category": "…", "priority": "…"}.', _json_without_schema
    ),
    "role_confusion": Rule("warning", "system first, then user and assistant in turn, a user last", _role_confusion),
    "vague_wording": Rule("info", "instead of “dates, names, etc.”: list every field", _vague_wording),
    "no_instructions": Rule("warning", "Summarize this ticket in one sentence:\n{{ ticket }}", _no_instructions),
    "hidden_characters": Rule("error", "type the line anew", _hidden_characters),
    "secret": Rule("error", "revoke the key, and give what is secret as a variable that is not logged", _secrets),
    "single_brace_variable": Rule("warning", "{{ name }}", _single_braces),
}


def counts(found: Sequence[Suggestion]) -> dict[str, int]:
    counted = Counter(one.severity for one in found)
    return {severity: counted[severity] for severity in SEVERITIES}
