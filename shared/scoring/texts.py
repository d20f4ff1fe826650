"""Scorers that compare texts: the same, held, matched, near, overlapping."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq, Levenshtein
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from shared.scoring.options import compiled
from shared.scoring.scores import (
    MAX_COMPARED,
    Delivered,
    Score,
    expected_got,
    graded,
    normalized,
    shown,
    text_of,
    words,
)
from shared.scoring.structures import parse_json

Settings = Mapping[str, Any]


def exact_match(answer: Delivered, settings: Settings) -> Score:
    wanted, got = text_of(answer.expected), answer.text
    same = normalized(wanted) == normalized(got) if settings["normalize"] else wanted == got
    return graded(float(same), expected_got(wanted, got))


def contains(answer: Delivered, settings: Settings) -> Score:
    """The share of the expected texts that the answer holds."""
    wanted = (
        [text_of(item) for item in answer.expected] if isinstance(answer.expected, list) else [text_of(answer.expected)]
    )
    fold = str if settings["case_sensitive"] else str.casefold
    text = fold(unicodedata.normalize("NFC", answer.text))
    missing = [item for item in wanted if fold(unicodedata.normalize("NFC", item)) not in text]
    share = 1 - len(missing) / len(wanted) if wanted else 1.0
    return graded(share, f"missing: {_listed(missing)}")


def regex(answer: Delivered, settings: Settings) -> Score:
    """1 if the pattern is found, and its group, when one is named, is what is expected."""
    pattern = compiled(settings["pattern"], settings["ignore_case"], settings["dot_all"], settings["multi_line"])
    found = pattern.fullmatch(answer.text) if settings["whole"] else pattern.search(answer.text)
    if found is None:
        return graded(0.0, f"nothing matches {shown(settings['pattern'])}: the answer was {shown(answer.text)}")
    if settings["group"] is None:
        return graded(1.0)
    if settings["group"] > pattern.groups:
        return graded(0.0, f"the pattern has {pattern.groups} groups, not {settings['group']}")
    got, wanted = found.group(settings["group"]) or "", text_of(answer.expected)
    return graded(float(normalized(got) == normalized(wanted)), expected_got(wanted, got))


def levenshtein(answer: Delivered, settings: Settings) -> Score:
    """1 - edits / the longer length (Levenshtein 1966)."""
    return _alike(answer, settings, Levenshtein.normalized_similarity)


def token_set(answer: Delivered, settings: Settings) -> Score:
    """How alike the sets of words are, in any order; 1 as well when one holds all of the other's."""
    return _alike(answer, settings, lambda wanted, got: fuzz.token_set_ratio(wanted, got) / 100)


def _alike(answer: Delivered, settings: Settings, measure: Callable[[str, str], float]) -> Score:
    wanted, got = text_of(answer.expected), answer.text
    fold: Callable[[str], str] = normalized if settings["normalize"] else str
    a, b = fold(wanted)[:MAX_COMPARED], fold(got)[:MAX_COMPARED]
    value = 1.0 if a == b else measure(a, b)
    return graded(value, f"{expected_got(wanted, got)}; {value:.0%} alike")


def f1(answer: Delivered, settings: Settings) -> Score:
    return _overlap(answer, settings, "f1")


def precision(answer: Delivered, settings: Settings) -> Score:
    return _overlap(answer, settings, "precision")


def recall(answer: Delivered, settings: Settings) -> Score:
    return _overlap(answer, settings, "recall")


def _overlap(answer: Delivered, settings: Settings, measure: str) -> Score:
    """Of two bags of words, as SQuAD has it (Rajpurkar et al. 2016), or of two sets of labels."""
    if settings["of"] == "labels":
        wanted = Counter(set(_labels(answer.expected, settings["separator"])))
        got = Counter(set(_labels(_parsed(answer.text), settings["separator"])))
    else:
        wanted, got = Counter(words(text_of(answer.expected))), Counter(words(answer.text))
    value = _f_score((wanted & got).total(), wanted.total(), got.total(), measure)
    missing = [] if measure == "precision" else list(wanted - got)
    extra = [] if measure == "recall" else list(got - wanted)
    parts = [f"missing: {_listed(missing)}"] if missing else []
    parts += [f"not expected: {_listed(extra)}"] if extra else []
    return graded(value, "; ".join(parts))


def _parsed(text: str) -> Any:
    """A list of the answer as one; anything else as its text."""
    found = parse_json(text, lenient=False)
    return found.value if found is not None and isinstance(found.value, list) else text


def _labels(value: Any, separator: str) -> list[str]:
    items = value if isinstance(value, list) else text_of(value)[:MAX_COMPARED].split(separator)
    return [label for item in items if (label := normalized(text_of(item)))]


def rouge_l(answer: Delivered, settings: Settings) -> Score:
    """By the longest common subsequence of words (Lin 2004), F with beta 1 unless told otherwise."""
    wanted, got = words(text_of(answer.expected)), words(answer.text)
    value = _f_score(LCSseq.similarity(wanted, got), len(wanted), len(got), settings["measure"])
    return graded(value, f"{expected_got(text_of(answer.expected), answer.text)}; ROUGE-L {value:.2f}")


def _f_score(common: int, wanted: int, got: int, measure: str) -> float:
    """Two that are empty are the same. Of nothing, nothing is missing and nothing is wrong."""
    if measure == "precision":
        return common / got if got else float(not wanted)
    if measure == "recall":
        return common / wanted if wanted else 1.0
    return 2 * common / (wanted + got) if wanted + got else 1.0


def bleu(answer: Delivered, settings: Settings) -> Score:
    """Of one sentence, with effective order and exponential smoothing (Papineni et al. 2002; Post 2018)."""
    wanted, got = text_of(answer.expected)[:MAX_COMPARED], answer.text[:MAX_COMPARED]
    same = " ".join(wanted.split()) == " ".join(got.split())
    value = 1.0 if same else _bleu(settings["tokenize"]).sentence_score(got, [wanted]).score / 100
    return graded(value, f"{expected_got(wanted, got)}; BLEU {value:.2f}")


@lru_cache(maxsize=4)
def _bleu(tokenize: str) -> Any:
    return BLEU(effective_order=True, tokenize=tokenize)


def chrf(answer: Delivered, settings: Settings) -> Score:
    """F-score of character n-grams, recall weighing beta times as much (Popović 2015); with words, chrF++ (2017)."""
    wanted, got = text_of(answer.expected)[:MAX_COMPARED], answer.text[:MAX_COMPARED]
    same = " ".join(wanted.split()) == " ".join(got.split())
    metric = _chrf(settings["char_order"], settings["word_order"], settings["beta"])
    value = 1.0 if same else metric.sentence_score(got, [wanted]).score / 100
    return graded(value, f"{expected_got(wanted, got)}; chrF {value:.2f}")


@lru_cache(maxsize=16)
def _chrf(char_order: int, word_order: int, beta: int) -> Any:
    return CHRF(char_order=char_order, word_order=word_order, beta=beta)


def length(answer: Delivered, settings: Settings) -> Score:
    """1 within the limits; outside, how near it comes to the one that it breaks."""
    unit, low, high = settings["unit"], settings["min"], settings["max"]
    number = _COUNTS[unit](answer.text)
    if low is not None and number < low:
        return graded(number / low, f"{number:,} {unit}, at least {low:,} are wanted")
    if high is not None and number > high:
        return graded(high / number, f"{number:,} {unit}, at most {high:,} are wanted")
    return graded(1.0)


_COUNTS: Mapping[str, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "lines": lambda text: len(text.splitlines()),
}


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return ", ".join(map(shown, items[:10])) + more
