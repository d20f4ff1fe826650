"""The catalogue of scorers: what each does, takes and needs. Checks, OpenAPI and the reference are made from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from shared.errors import field_error
from shared.scoring import asked, structures, texts
from shared.scoring.asked import Ask
from shared.scoring.options import WEIGHT, Option
from shared.scoring.scores import Delivered, Missing, Score

MODES = ("weighted", "min", "max", "product", "all_pass")


@dataclass(frozen=True)
class Kind:
    """A scorer. `version` is raised when the same options would give another score to the same answer."""

    function: Callable[[Delivered, Mapping[str, Any]], Score | Missing] | None  # None: it is scored by its parts
    options: Mapping[str, Option]
    description: str
    threshold: float = 1.0  # from which score on it has passed, unless told otherwise
    compares: Callable[[Mapping[str, Any]], bool] = lambda settings: True  # with an expected value
    expects: Callable[[Any], str | None] = lambda expected: None  # what is wrong with an expected value
    asks: Callable[[Delivered, Mapping[str, Any]], list[Ask]] | None = None
    rule: Callable[[Mapping[str, Any], str], None] = lambda settings, pointer: None  # across options
    version: int = 1

    @cached_property
    def all_options(self) -> Mapping[str, Option]:
        """Its own, then those that all have."""
        threshold = replace(COMMON["threshold"], default=self.threshold)
        return {
            **self.options,
            **{k: o for k, o in {**COMMON, "threshold": threshold}.items() if k not in self.options},
        }


def _not_a_number(expected: Any) -> str | None:
    return None if structures.number_of(expected) is not None else "is no number"


def _never(settings: Mapping[str, Any]) -> bool:
    return False


def _length_rule(settings: Mapping[str, Any], pointer: str) -> None:
    low, high = settings["min"], settings["max"]
    if low is None and high is None:
        raise field_error(f"{pointer}/max", "give min, max or both")
    if low is not None and high is not None and low > high:
        raise field_error(f"{pointer}/max", "must be at least min")


def _limit_rule(unit: str) -> Callable[[Mapping[str, Any], str], None]:
    def rule(settings: Mapping[str, Any], pointer: str) -> None:
        if settings[f"limit_{unit}"] <= settings[f"target_{unit}"]:
            raise field_error(f"{pointer}/limit_{unit}", f"must be above target_{unit}")

    return rule


def _cosine_rule(settings: Mapping[str, Any], pointer: str) -> None:
    if settings["high"] <= settings["low"]:
        raise field_error(f"{pointer}/high", "must be above low")


COMMON: Mapping[str, Option] = {
    "weight": WEIGHT,
    "threshold": Option("float", 1.0, 0, 1, note="score from which on it has passed"),
    "required": Option("bool", False, note="when it fails, the whole answer scores 0"),
}
_NORMALIZE = Option("bool", True, note="look past case, white space, quotes, final marks and Unicode forms")
_INVERT = Option("bool", False, note="score 1 - score: what is found is not wanted")
_OF = Option("enum", "words", choices=("words", "labels"), note="bags of words, or sets of labels")
_SEPARATOR = Option("text", ",", note="between labels of a text; a JSON list needs none")
_LENIENT = Option("bool", False, note="take the first JSON inside other text")
_OVERLAP = {"of": _OF, "separator": _SEPARATOR}

SCORERS: Mapping[str, Kind] = {
    "exact_match": Kind(
        texts.exact_match,
        {"normalize": _NORMALIZE, "invert": _INVERT},
        "1 if the answer equals the expected text",
    ),
    "contains": Kind(
        texts.contains,
        {"case_sensitive": Option("bool", False, note="upper and lower case differ"), "invert": _INVERT},
        "share of the expected texts that the answer holds",
    ),
    "regex": Kind(
        texts.regex,
        {
            "pattern": Option("pattern", note="in RE2's syntax: linear time, so no look-around and no back-references"),
            "whole": Option("bool", False, note="the whole answer must match"),
            "ignore_case": Option("bool", False, note="upper and lower case are alike"),
            "dot_all": Option("bool", False, note="a dot matches a line end too"),
            "multi_line": Option("bool", False, note="^ and $ match at each line"),
            "group": Option(
                "int", None, 1, 99, nullable=True, note="what this group holds must equal the expected text"
            ),
            "invert": _INVERT,
        },
        "1 if the pattern matches",
        compares=lambda settings: settings.get("group") is not None,
    ),
    "numeric": Kind(
        structures.numeric,
        {
            "abs_tol": Option("float", 0.0, 0, 1e12, note="largest difference"),
            "rel_tol": Option("float", 1e-9, 0, 1, note="largest difference as a share of the expected number"),
            "pick": Option("enum", "last", choices=("first", "last", "only"), note="which number of the answer"),
        },
        "1 if a number of the answer is the expected one, within either tolerance",
        expects=_not_a_number,
    ),
    "json_valid": Kind(structures.json_valid, {}, "1 if the answer is a JSON object", compares=_never),
    "json_schema": Kind(
        structures.json_schema,
        {
            "schema": Option("json_schema", note="JSON Schema 2020-12, without patterns and remote references"),
            "lenient": _LENIENT,
        },
        "1 if the answer is JSON that fits the schema",
        compares=_never,
    ),
    "json_fields": Kind(
        structures.json_fields,
        {
            "lenient": _LENIENT,
            "tolerance": Option("float", 0.0, 0, 1e12, note="largest difference of two numbers"),
            "ignore_order": Option("bool", False, note="lists are equal in any order"),
            "weights": Option("field_weights", {}, note="by field; 1 if left out"),
            "no_others": Option("bool", False, note="each field that is not expected counts as a wrong one"),
        },
        "share of the expected fields that are right",
    ),
    "f1": Kind(texts.f1, _OVERLAP, "harmonic mean of precision and recall"),
    "precision": Kind(texts.precision, _OVERLAP, "share of the answer that is expected"),
    "recall": Kind(texts.recall, _OVERLAP, "share of what is expected that the answer has"),
    "levenshtein": Kind(texts.levenshtein, {"normalize": _NORMALIZE}, "1 - edits / the longer length", threshold=0.8),
    "token_set": Kind(
        texts.token_set, {"normalize": _NORMALIZE}, "how alike the words are, in any order", threshold=0.8
    ),
    "rouge_l": Kind(
        texts.rouge_l,
        {"measure": Option("enum", "f1", choices=("f1", "precision", "recall"), note="of the common subsequence")},
        "longest common subsequence of words",
        threshold=0.5,
    ),
    "bleu": Kind(
        texts.bleu,
        {"tokenize": Option("enum", "13a", choices=("13a", "char", "none"), note="sacrebleu's tokenizer")},
        "n-grams in common with the expected text, of one sentence",
        threshold=0.5,
    ),
    "chrf": Kind(
        texts.chrf,
        {
            "char_order": Option("int", 6, 1, 10, note="longest n-gram of characters"),
            "word_order": Option("int", 0, 0, 2, note="longest n-gram of words; 2 makes it chrF++"),
            "beta": Option("int", 2, 1, 5, note="how much more what is missing counts than what is too much"),
        },
        "character n-grams in common with the expected text; steadier than BLEU on single sentences",
        threshold=0.5,
    ),
    "length": Kind(
        texts.length,
        {
            "unit": Option("enum", "characters", choices=("characters", "words", "lines"), note="what is counted"),
            "min": Option("int", None, 1, 1_000_000, nullable=True, note="at least so many"),
            "max": Option("int", None, 1, 1_000_000, nullable=True, note="at most so many"),
        },
        "1 within the limits, outside how near it comes",
        compares=_never,
        rule=_length_rule,
    ),
    "latency": Kind(
        structures.latency,
        {
            "target_ms": Option("float", 0.0, 0, 1e9, note="up to here 1"),
            "limit_ms": Option("float", low=0, high=1e9, note="from here on 0"),
        },
        "1 up to the target, 0 from the limit on, a line between",
        threshold=0.5,
        compares=_never,
        rule=_limit_rule("ms"),
    ),
    "cost": Kind(
        structures.cost,
        {
            "target_usd": Option("float", 0.0, 0, 1e6, note="up to here 1"),
            "limit_usd": Option("float", low=0, high=1e6, note="from here on 0"),
        },
        "1 up to the target, 0 from the limit on, a line between",
        threshold=0.5,
        compares=_never,
        rule=_limit_rule("usd"),
    ),
    "embedding_similarity": Kind(
        asked.embedding_similarity,
        {
            "model": Option("model", note="provider and model_name of an embedding model"),
            "low": Option("float", 0.0, -1, 1, note="cosine that scores 0"),
            "high": Option("float", 1.0, -1, 1, note="cosine that scores 1"),
        },
        "cosine of the embeddings of the answer and the expected text",
        threshold=0.8,
        asks=asked.embedding_asks,
        rule=_cosine_rule,
    ),
    "llm_judge": Kind(
        asked.llm_judge,
        {
            "model": Option("model", note="provider and model_name of the judge; better another than the one judged"),
            "criteria": Option("criteria", note="list of name, description and weight"),
            "mode": Option(
                "enum",
                "rubric",
                choices=("rubric", "pairwise"),
                note="rate each criterion, or compare with the reference",
            ),
            "scale": Option("int", 1, 1, 10, note="rubric: a criterion is rated from 0 to this; 1 is yes or no"),
            "reference": Option("bool", False, note="rubric: show the judge the expected value"),
            "votes": Option("int", 1, 1, 9, note="how often the judge is asked"),
            "order_swap": Option("bool", True, note="pairwise: ask in both orders, which doubles the calls"),
        },
        "a model rates the answer by criteria, or against the expected one (1 better, 0.5 as good)",
        threshold=0.5,
        compares=lambda settings: settings["mode"] == "pairwise" or settings["reference"],
        asks=asked.judge_asks,
    ),
    "composite": Kind(
        None,
        {
            "parts": Option("scorers", note="list of scorers"),
            "mode": Option("enum", "weighted", choices=MODES, note="how their scores become one"),
            "threshold": Option(
                "float",
                None,
                0,
                1,
                nullable=True,
                note="passed from this score on; null: when all parts have passed (max: one)",
            ),
        },
        "several scorers as one",
    ),
}
