"""A pool of sentences: what a rewrite brings to it, and the prompts that are written from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.strategies import edits, sentences

SEED = {"template": "Sort it.\nBe brief.\n{{ x }}\nEnd."}


def pool_of(seed: dict[str, str] = SEED) -> sentences.Pool:
    return sentences.first_pool(seed, level="sentence")


def texts(pool: sentences.Pool, held: list[int]) -> list[str]:
    return [pool[number]["text"] for number in held]


@pytest.mark.parametrize(
    ("rewrite", "held"),
    [
        ("Sort it.\nBe brief.\n{{ x }}\nEnd.\nCheck units.", ["Sort it.", "Be brief.", "End.", "Check units."]),
        ("Sort it.\nCheck units.\n{{ x }}\nEnd.", ["Sort it.", "End.", "Check units."]),
        ("Sort it.\nBe very brief.\n{{ x }}\nEnd.", ["Sort it.", "Be brief.", "End."]),
        ("Sort it.\nBe brief.\nNow {{ x }}!\nEnd.", ["Sort it.", "Be brief.", "End."]),
        ("End.\nSort it.\n{{ x }}", ["Sort it.", "End."]),
    ],
    ids=["at the end", "in the place of another", "nearly the same", "a fixed line", "another order"],
)
def test_a_rewrite_holds_what_it_kept_and_what_it_added(rewrite: str, held: list[str]) -> None:
    pool = pool_of()

    assert texts(pool, sentences.read(pool, SEED, {"template": rewrite}, level="sentence")) == held


def test_what_two_rewrites_say_is_in_the_pool_once() -> None:
    pool = pool_of()
    rewrites = ["Check all units.\nSort it.\n{{ x }}", "Always check all units.\nSort it.\n{{ x }}\nBe kind."]

    for rewrite in rewrites:
        sentences.read(pool, SEED, {"template": rewrite}, level="sentence")

    assert [item["text"] for item in pool if not item["is_seed"]] == ["Check all units.", "Be kind."]


def test_a_prompt_is_written_with_new_sentences_where_rewrites_had_them() -> None:
    pool = pool_of()
    sentences.read(pool, SEED, {"template": "Sort it.\nCheck units.\nBe brief.\n{{ x }}\nEnd."}, level="sentence")
    sentences.read(pool, SEED, {"template": "Sort it.\nBe brief.\n{{ x }}\nEnd.\nBe kind."}, level="sentence")

    def written(*wanted: str) -> str:
        held = [number for number, item in enumerate(pool) if item["text"] in wanted]
        return sentences.written(pool, SEED, held, level="sentence")["template"]

    assert written("Sort it.", "Check units.", "Be kind.", "End.") == "Sort it.\nCheck units.\n{{ x }}\nEnd.\nBe kind."
    assert written("Be brief.") == "Be brief.\n{{ x }}"
    assert written() == "{{ x }}"


def test_a_sentence_that_is_left_out_leaves_its_line_ended() -> None:
    seed = {"template": "Sort it. Be brief.\n{{ x }}"}

    assert sentences.written(pool_of(seed), seed, [0], level="sentence") == {"template": "Sort it.\n{{ x }}"}


def test_each_component_has_its_own_sentences() -> None:
    seed = {"system": "Be kind.", "user": "Be kind.\n{{ x }}"}
    pool = pool_of(seed)

    held = sentences.read(pool, seed, {"system": "Be kind.\nBe exact.", "user": "{{ x }}"}, level="sentence")

    assert [(pool[number]["component"], pool[number]["text"]) for number in held] == [
        ("system", "Be kind."),
        ("system", "Be exact."),
    ]
    assert sentences.written(pool, seed, held, level="sentence") == {
        "system": "Be kind.\nBe exact.",
        "user": "{{ x }}",
    }


LINES = st.lists(
    st.sampled_from(["Sort it.", "Be brief. Be kind.", "", "- a", "- b", "{{ x }}", "```", "# Head", "Say e.g. this."]),
    max_size=8,
)


@given(lines=LINES, level=st.sampled_from(["sentence", "line", "section"]))
def test_a_prompt_with_all_sentences_of_the_seed_is_the_seed(lines: list[str], level: str) -> None:
    seed = {"template": "\n".join(lines)}
    pool = sentences.first_pool(seed, level=level)

    assert sentences.written(pool, seed, range(len(pool)), level=level) == seed
    assert sentences.read(pool, seed, seed, level=level) == list(range(len(pool)))
    assert len(pool) == len(edits.cut(seed["template"], level).free)
