"""An answer that broke the template is sent back, as often as the knob says, and then refused for what was wrong."""

from tests.strategies.effects import loses_its_placeholder, reasons
from tests.strategies.world import World, run_search
from worker.strategies.contract import Propose

GOOD = "<prompt>\nSort it with care.\n{{ ticket }}\n</prompt>"


def broken_at_first(work: Propose, text: str) -> str:
    return GOOD if work.operator == "repair" else loses_its_placeholder(work, text)


def test_a_repaired_answer_is_a_child_of_the_operator_that_was_asked_first() -> None:
    run = run_search("random", World(rewrite=broken_at_first), knobs_={"proposals": 2})
    seed, child = run.state["candidates"]

    assert len(run.repairs) == 2
    assert (child["operator"], child["parents"]) == ("paraphrase", [seed["hash"]])
    assert child["lineage"]["repairs"] == 1
    assert child["lineage"]["proposal"] in {work.key for work in run.repairs}


def test_the_request_shows_the_broken_text_and_what_it_lost() -> None:
    run = run_search("random", World(rewrite=broken_at_first), knobs_={"proposals": 1})
    (work,) = run.repairs
    asked = work.messages[-1]["content"]

    assert f"Sort it well, {run.proposals[0].key[:9]}." in asked
    assert "exactly these placeholders: {{ ticket }}" in asked
    assert "variables changed" in asked


def test_what_stays_broken_is_refused_once() -> None:
    run = run_search("random", World(rewrite=loses_its_placeholder), knobs_={"proposals": 3, "repair_attempts": 2})

    assert [work.attempt for work in run.repairs] == [1, 1, 1, 2, 2, 2]
    assert len({work.key for work in run.repairs}) == 6
    assert reasons(run) == {"variables changed to []"}
    assert run.state["rejected"] == 3


def test_the_same_broken_answer_again_is_another_call() -> None:
    world = World(rewrite=lambda work, text: "<prompt>\nSort it.\n</prompt>")

    run = run_search("random", world, knobs_={"proposals": 2, "repair_attempts": 3})

    assert len(run.repairs) == len({work.key for work in run.repairs}) == 6


def test_a_repair_that_cannot_be_paid_for_is_refused_and_the_search_goes_on() -> None:
    run = run_search(
        "random",
        World(rewrite=loses_its_placeholder),
        knobs_={"proposals": 3},
        budget={"max_task_calls": 600, "max_proposer_calls": 4},
    )

    assert len(run.repairs) == 1
    assert run.state["rejected"] == 3
    assert run.state["finish_reason"] == "budget_proposer_calls"
    assert run.result["holdout"]["n"] == len(run.state["holdout"])


def test_repairs_that_nobody_answers_do_not_end_the_search_as_failed() -> None:
    class Mute(World):
        def _proposal(self, work: Propose) -> str:
            return loses_its_placeholder(work, "")

        def answer(self, work, texts):  # type: ignore[no-untyped-def]
            found = super().answer(work, texts)
            is_repair = isinstance(work, Propose) and bool(work.repair_of)
            return type(found)(work.key) if is_repair else found

    run = run_search("random", Mute(), knobs_={"proposals": 2})

    assert run.state["finish_reason"] == "max_rounds"
    assert reasons(run) == {"its repair was not answered"}
