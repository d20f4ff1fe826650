"""One search by a library, as it is installed, in the virtual environment of the libraries.

    .venv-optimizers/bin/python -m benchmarks.optimizers.peer '{"peer": "gepa", "base_url": ...}'

It knows the libraries and nothing of ours. What it prints last is one JSON object: the prompt that came out.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

THREADS = 4
Given = Mapping[str, Any]  # peer, base_url, seed_text, train, dev (each a list of text and answer), budget, seed


def main() -> None:
    given: Given = json.loads(sys.argv[1])
    found = PEERS[given["peer"]](given)
    print("\n" + json.dumps({"prompt": found}))


# ---- gepa -----------------------------------------------------------------------------------


def by_gepa(given: Given) -> str:
    """`gepa.optimize` with its default adapter and evaluator; the budget is its own setting."""
    import openai
    from gepa.api import optimize

    client = openai.OpenAI(base_url=given["base_url"], api_key="none", max_retries=0)

    def task(messages: Sequence[Any]) -> str:
        done = client.chat.completions.create(model="world-task", messages=list(messages), temperature=0)
        return done.choices[0].message.content or ""

    def reflect(prompt: Any) -> str:
        messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        done = client.chat.completions.create(model="world-proposer", messages=messages, temperature=1)
        return done.choices[0].message.content or ""

    def cases(part: str) -> list[dict[str, Any]]:
        return [{"input": case["text"], "additional_context": {}, "answer": case["answer"]} for case in given[part]]

    result: Any = optimize(
        seed_candidate={"system_prompt": given["seed_text"]},
        trainset=cast("Any", cases("train")),
        valset=cast("Any", cases("dev")),
        task_lm=task,
        reflection_lm=reflect,
        max_metric_calls=given["budget"],
        seed=given["seed"],
        logger=_Quiet(),
    )
    return str(result.best_candidate["system_prompt"])


class _Quiet:
    def log(self, *words: Any, **named: Any) -> None:
        print(*words, file=sys.stderr)


# ---- dspy -----------------------------------------------------------------------------------


def _dspy(given: Given) -> tuple[Any, Any, Any, list[Any], list[Any]]:
    """The program, the two models and the cases, all as dspy has them."""
    import dspy

    def model(name: str, temperature: float) -> Any:
        return dspy.LM(
            f"openai/{name}", api_base=given["base_url"], api_key="none", cache=False, temperature=temperature,
            num_retries=0, max_tokens=2000,
        )  # fmt: skip

    task, proposer = model("world-task", 0.0), model("world-proposer", 1.0)
    dspy.configure(lm=task)
    program = dspy.Predict(dspy.Signature("record -> answer", given["seed_text"]))
    parts = [
        [dspy.Example(record=case["text"], answer=case["answer"]).with_inputs("record") for case in given[part]]
        for part in ("train", "dev")
    ]
    return program, task, proposer, parts[0], parts[1]


def _metric(gold: Any, predicted: Any, *_: Any) -> float:
    return float(str(predicted.answer).strip() == gold.answer)


def _told(gold: Any, predicted: Any, *_: Any) -> Any:
    """The same, with the words that ours and gepa's are told."""
    import dspy

    right = _metric(gold, predicted)
    said = "" if right else f"expected {gold.answer}, got {predicted.answer}"
    return dspy.Prediction(score=right, feedback=said)


def _instructions(program: Any) -> str:
    return str(program.predictors()[0].signature.instructions)


def by_copro(given: Given) -> str:
    """It scores every prompt on all cases that it is given, which are those that the others select on."""
    import dspy

    program, _, proposer, _, dev = _dspy(given)
    search = dspy.COPRO(prompt_model=proposer, metric=_metric)
    done = search.compile(program, trainset=dev, eval_kwargs={"num_threads": THREADS, "display_progress": False})
    return _instructions(done)


def by_mipro(given: Given, **demos: int) -> str:
    import dspy

    program, task, proposer, train, dev = _dspy(given)
    search = dspy.MIPROv2(
        metric=_metric, prompt_model=proposer, task_model=task, num_threads=THREADS, seed=given["seed"], **demos
    )
    return _instructions(search.compile(program, trainset=train, valset=dev))


def by_mipro_instructions(given: Given) -> str:
    """Without demonstrations, which these worlds give no effect."""
    return by_mipro(given, max_bootstrapped_demos=0, max_labeled_demos=0)


def by_dspy_gepa(given: Given) -> str:
    import dspy

    program, _, proposer, train, dev = _dspy(given)
    search = dspy.GEPA(
        metric=_told,
        reflection_lm=proposer,
        max_metric_calls=given["budget"],
        num_threads=THREADS,
        seed=given["seed"],
    )
    return _instructions(search.compile(program, trainset=train, valset=dev))


PEERS: Mapping[str, Callable[[Given], str]] = {
    "gepa": by_gepa,
    "dspy_copro": by_copro,
    "dspy_mipro": by_mipro,
    "dspy_mipro_instructions": by_mipro_instructions,
    "dspy_gepa": by_dspy_gepa,
}

if __name__ == "__main__":
    main()
