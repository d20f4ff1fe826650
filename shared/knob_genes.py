"""The knobs of the searches over demonstrations and model settings, by strategy."""

from collections.abc import Mapping

from shared import spaces
from shared.knob_blocks import COMMON
from shared.knob_values import Knob

_NO_TEXTS = ("finalists",)  # of the common knobs, what a strategy has that leaves the texts alone
_TEACHING: Mapping[str, Knob] = {
    "teacher": Knob("optional_text", None, note="model that answers the train cases; null: the task's own"),
    "metric_threshold": Knob("float", 1.0, 0, 1, open_low=True, note="score that makes an answer a demonstration"),
}
TIPS: Mapping[str, str] = {
    "none": "",
    "creative": "Do not be afraid to be creative.",
    "simple": "Keep the prompt clear and concise.",
    "description": "Make the prompt informative: describe what the input and the answer are.",
    "high_stakes": "Describe a situation in which a wrong answer would do harm.",
    "persona": "Begin with the role that is best placed to do this task.",
}

GENES: Mapping[str, Mapping[str, Knob]] = {
    "bootstrap": {
        **_TEACHING,
        "rounds": Knob("int", 1, 1, 10, note="passes of the teacher; from the second, warmer and for what failed"),
        "max_bootstrapped": Knob("int", 4, 0, 32, note="demonstrations answered by the teacher, per set"),
        "max_labeled": Knob("int", 4, 0, 64, note="demonstrations in all, filled up with expected answers"),
        "include_reasoning": Knob("bool", False, note="the teacher reasons before it answers, and that is shown too"),
        "candidate_sets": Knob("int", 12, 1, 256, note="sets tried besides the controls"),
        "selection": Knob(
            "enum", "random", choices=("random", "diverse", "optuna"), note="how the cases of a set are picked"
        ),
        "order": Knob(
            "enum", "random", choices=("random", "by_similarity"), note="by_similarity: the most typical case last"
        ),
        "length_penalty": COMMON["length_penalty"],
        "max_prompt_tokens": COMMON["max_prompt_tokens"],
        **{name: COMMON[name] for name in _NO_TEXTS},
    },
    "mipro": {
        "num_instructions": Knob("int", 6, 1, 64, note="instructions proposed from train cases, beside the seed's"),
        "num_demo_sets": Knob("int", 6, 0, 64, note="sets of demonstrations, beside none; 0: instructions only"),
        "max_bootstrapped_demos": Knob("int", 3, 0, 16, note="demonstrations answered by the teacher, per set"),
        "max_labeled_demos": Knob("int", 3, 0, 16, note="demonstrations in all, filled up with expected answers"),
        **_TEACHING,
        "trials": Knob("optional_int", None, 1, 5000, note="pairs scored; null: as MIPROv2 counts them"),
        "minibatch_size": Knob("int", 24, 1, 10_000, note="dev cases of a trial"),
        "full_eval_every": Knob("int", 5, 1, 100, note="trials until the best mean is scored on all of dev"),
        "batch": Knob("int", 4, 1, 32, note="trials at once"),
        "sampler": Knob("enum", "tpe", choices=("tpe", "gp", "random"), note="what proposes the next pairs"),
        "refresh_instructions_every": Knob("int", 0, 0, 100, note="batches until the best is rewritten; 0: never"),
        "tips": Knob("names", list(TIPS), choices=tuple(TIPS), note="styles that the proposer is asked for in turn"),
        **COMMON,
    },
    "hyperparameter": {
        "search_method": Knob(
            "enum", "bayesian", choices=("bayesian", "gp", "grid", "random", "qmc"), note="bayesian: TPE; qmc: Halton"
        ),
        "params_to_optimize": Knob(
            "space",
            {"temperature": {**spaces.RANGES["temperature"]}},
            choices=(*spaces.RANGES, "model_name"),
            note="setting to {type, low, high, step, log} or {choices}; or a list of settings",
        ),
        "max_trials": Knob("int", 20, 1, 5000, note="settings tried"),
        "batch": Knob("int", 4, 1, 64, note="trials at once"),
        "pruner": Knob(
            "enum", "none", choices=("none", "median", "halving", "paired"), note="who is dropped after `min_cases`"
        ),
        "pruner_p": Knob(
            "float", 0.1, 0, 0.5, open_low=True, note="how unlikely a chance must be", only={"pruner": ("paired",)}
        ),
        "objective_weights": Knob(
            "weights",
            {"score": 1.0},
            choices=("score", "cost", "latency"),
            note="subtracts (weight / score's) x (mean / the seed's mean) / 10",
        ),
        **{name: COMMON[name] for name in _NO_TEXTS},
    },
}
