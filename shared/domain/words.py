"""Words: of texts and of what a user types, folded alike for the index, the query and the highlights. Pure."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST_WORD = 64  # the rest of a longer one is not looked at
MOST_WORDS_TYPED = 64
SHORTEST_PREFIX = 2
_TYPED = re.compile(r'(-?)"([^"]*)"|(\S+)')


@dataclass(frozen=True)
class Term:
    """Words that must stand side by side; with `is_prefix` the last may go on."""

    words: tuple[str, ...]
    is_prefix: bool = False

    def __str__(self) -> str:
        return self.words[0] if len(self.words) == 1 else f'"{" ".join(self.words)}"'


@dataclass(frozen=True)
class Query:
    """What is wanted (all of it) and what is not (any of it)."""

    terms: tuple[Term, ...] = ()
    excluded: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return " ".join([*map(str, self.terms), *(f"-{term}" for term in self.excluded)])


@dataclass(frozen=True)
class Part:
    """A piece of a text, and whether it is what was looked for."""

    text: str
    match: bool


def words_of(text: str) -> list[str]:
    """The words of a text: without case, accents and signs, in the letters that look the same.

    Chinese and Japanese signs are a word each, since nothing separates the words: what is typed is then found as
    signs that stand side by side.
    """
    return [word[:LONGEST_WORD] for word in text.translate(_FOLDED).split()]


def parse(text: str) -> Query:
    """What a user typed. Every text means something: `"side by side"`, `-without`, and the last word may go on.

    Signs that are part of no word separate words; words that they join (`e-mail`) must stand side by side. Words after
    the first 64 are not looked at.
    """
    terms: dict[Term, None] = {}
    excluded: dict[Term, None] = {}
    left = MOST_WORDS_TYPED
    typed = list(_TYPED.finditer(text.replace("“", '"').replace("”", '"')))
    for piece in typed:
        is_excluded = (piece[1] or (piece[3] or "")[:1]) == "-"
        words = tuple(words_of(piece[2] or piece[3] or "")[:left])
        if not words:
            continue
        left -= len(words)
        if is_excluded:
            excluded[Term(words)] = None
            continue
        goes_on = piece is typed[-1] and piece[3] is not None and len(words[-1]) >= SHORTEST_PREFIX
        terms[Term(words, is_prefix=goes_on)] = None
    return Query(tuple(terms), tuple(excluded))


def holds(text: str, terms: Sequence[Term]) -> bool:
    """Whether the text holds every one of these."""
    words = words_of(text)
    return all(any(_stands_at(words, place, term) for place in range(len(words))) for term in terms)


def highlight(text: str, terms: Sequence[Term], *, width: int) -> list[Part]:
    """About `width` characters of the text around the first thing that was looked for; empty if it holds none."""
    spans = list(_spans(text))
    words = [word for word, _, _ in spans]
    hits: list[tuple[int, int]] = []
    for place in range(len(words)):
        found = [len(term.words) for term in terms if _stands_at(words, place, term)]
        if found:
            start, end = spans[place][1], spans[place + max(found) - 1][2]
            if hits and start <= hits[-1][1]:  # the terms may overlap
                hits[-1] = (hits[-1][0], max(end, hits[-1][1]))
            else:
                hits.append((start, end))
    if not hits:
        return []
    first, last = _window(text, spans, hits[0], width)
    parts = [Part("…", match=False)] if first > 0 else []
    place = first
    for start, end in hits:
        if end > last:
            break
        parts += [Part(text[place:start], match=False), Part(text[start:end], match=True)]
        place = end
    parts.append(Part(text[place:last] + ("…" if last < len(text) else ""), match=False))
    return [part for part in parts if part.text]


def _window(text: str, spans: Sequence[tuple[str, int, int]], hit: tuple[int, int], width: int) -> tuple[int, int]:
    """Where to cut the text: between words, with a little of what stands before the hit."""
    if len(text) <= width:
        return 0, len(text)
    start, end = hit
    first = min((at for _, at, _ in spans if at >= start - width // 4), default=start)
    last = max((to for _, _, to in spans if to <= first + width), default=end)
    return (0 if first <= spans[0][1] else first), max(last, end)


def _stands_at(words: Sequence[str], place: int, term: Term) -> bool:
    end = place + len(term.words)
    if end > len(words) or tuple(words[place : end - 1]) != term.words[:-1]:
        return False
    last = words[end - 1]
    return last.startswith(term.words[-1]) if term.is_prefix else last == term.words[-1]


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Each word with where it begins and ends in the text as it was written."""
    if text.isascii():  # as below, a good deal faster
        for found in re.finditer("[A-Za-z0-9]+", text):
            yield found[0].lower()[:LONGEST_WORD], found.start(), found.end()
        return
    word, start, end = "", 0, 0
    for place, sign in enumerate(text + " "):
        folded = _FOLDED[ord(sign)]
        if " " not in folded:
            if folded and not word:
                start = place
            word += folded
            end = place + 1
            continue
        if word:
            yield word[:LONGEST_WORD], start, end
            word = ""
        for alone in folded.split():
            yield alone, place, place + 1


class _Folding(dict[int, str]):
    """What each sign becomes, computed when it is first met: a part of a word, nothing, or words between spaces."""

    def __missing__(self, code: int) -> str:
        self[code] = _fold(chr(code))
        return self[code]


_FOLDED = _Folding()


def _fold(sign: str) -> str:
    if unicodedata.category(sign) == "Cf":  # joiners and soft hyphens separate nothing
        return ""
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", sign).casefold())
    plain = unicodedata.normalize("NFKC", "".join(part for part in apart if not "\u0300" <= part <= "\u036f"))
    folded = "".join(
        f" {part} " if _is_a_word_by_itself(part) else part if _is_of_a_word(part) else " " for part in plain
    )
    return f" {folded.strip()} " if " " in folded else folded


def _is_of_a_word(sign: str) -> bool:
    return sign.isalnum() or unicodedata.category(sign).startswith("M")


def _is_a_word_by_itself(sign: str) -> bool:
    return (
        "\u3041" <= sign <= "\u30ff"  # kana
        or "\u3400" <= sign <= "\u9fff"
        or "\uf900" <= sign <= "\ufaff"
        or "\U00020000" <= sign <= "\U0003ffff"
    ) and sign.isalnum()
