"""dspy.Evaluate over the same cases. It runs in `.venv-optimizers`, where nothing of ours is installed.

    .venv-optimizers/bin/python benchmarks/dspy_evaluate.py '{"tickets": […], "answer": "{…}", …}'

The tickets after the first `warm` are counted. The result is one JSON object on stdout.
"""

import contextlib
import json
import sys
import time
import urllib.request
from typing import Any

import dspy


def main() -> None:
    told = json.loads(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):
        found = _evaluate(**told)
    print(json.dumps(found))


def _evaluate(
    *, port: int, model: str, instruction: str, tickets: list[str], warm: int, answer: str, in_flight: int
) -> dict[str, Any]:
    # With the adapter for JSON, which is what the stub answers with: another would ask a second time.
    lm = dspy.LM(
        f"openai/{model}",
        api_base=f"http://127.0.0.1:{port}/v1",
        api_key="none",
        cache=False,
        num_retries=0,
        temperature=None,
        max_tokens=None,
    )
    dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
    expected = json.loads(answer)
    predict = dspy.Predict(
        dspy.Signature(f"ticket -> {', '.join(f'{name}: str' for name in expected)}", instructions=instruction)
    )
    examples = [dspy.Example(ticket=ticket, **expected).with_inputs("ticket") for ticket in tickets]

    def is_right(example: Any, prediction: Any, trace: object = None) -> bool:
        return all(prediction.get(name) == example[name] for name in expected)

    def evaluated(part: list[Any]) -> int:
        run = dspy.Evaluate(devset=part, metric=is_right, num_threads=in_flight, display_progress=False, max_errors=1)
        return sum(bool(score) for _, _, score in run(predict).results)

    evaluated(examples[:warm])
    _tally(port)
    started, used = time.monotonic(), time.process_time()
    right = evaluated(examples[warm:])
    return {
        "seconds": time.monotonic() - started,
        "right": right,
        "cpu_seconds": time.process_time() - used,
        "tally": _tally(port),
        "version": dspy.__version__,
    }


def _tally(port: int) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/tally", timeout=10) as told:
        return json.load(told)


if __name__ == "__main__":
    main()
