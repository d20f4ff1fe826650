"""The knobs of the searches over texts, by strategy. A knob that is here changes what its search does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shared import knob_rules
from shared.knob_blocks import ADAPTIVE, COMMON, EDITS, EVIDENCE, LEVEL, LLM_OPERATORS, OPERATORS
from shared.knob_values import Knob

_HOT: Mapping[str, tuple[Any, ...]] = {"acceptance": knob_rules.WITH_TEMPERATURE}
_SCREENS = ("top_k", "threshold", "halving", "racing", "ucb", "successive_rejects", "diverse", "pareto")

TEXTS: Mapping[str, Mapping[str, Knob]] = {
    "random": {
        "proposals": Knob("int", 32, 1, 10_000, note="candidates drawn from the seed"),
        "mode": Knob("enum", "paraphrase", choices=("paraphrase", "fresh_start", "edit")),
        "edit_level": replace(LEVEL, only={"mode": ("edit",)}),
        **COMMON,
    },
    "noop": {
        "twins": Knob("int", 1, 1, 10, note="how often the seed is measured again, as if it were another prompt"),
    },
    "iterative": {
        "max_rounds": Knob("int", 20, 1, 10_000, note="steps"),
        "proposals_per_step": Knob("int", 4, 1, 32, note="children of the current prompt; the best may replace it"),
        "evidence_cases": EVIDENCE,
        "acceptance": Knob(
            "enum",
            "strict",
            choices=("strict", "at_least", "tolerance", "paired"),
            note="when the best child replaces the current prompt",
        ),
        "tolerance": Knob("float", 0.01, 0, 0.5, note="how much worse it may be", only={"acceptance": ("tolerance",)}),
        "paired_z": Knob(
            "float",
            1.0,
            0,
            3,
            note="standard errors of the paired difference it must be better by",
            only={"acceptance": ("paired",)},
        ),
        "confirm_cases": Knob("int", 0, 0, 10_000, note="further dev cases for both before the decision"),
        "max_stall": Knob("int", 8, 1, 1000, note="steps without acceptance before a restart"),
        "restarts": Knob("int", 1, 0, 20, note="fresh starts from the best; patience ends only the last stretch"),
        "operators": Knob(
            "weights",
            {"reflect": 0.7, "paraphrase": 0.1, "shorten": 0.1, "insert_phrase": 0.1},
            choices=OPERATORS,
            note="how often each operator makes a child",
        ),
        "adaptive_operators": ADAPTIVE,
        "edit_level": LEVEL,
        **COMMON,
    },
    "beam_search": {
        "beam_width": Knob("int", 3, 2, 64, note="parents kept from round to round"),
        "expansions_per_beam": Knob("int", 3, 1, 32, note="children of each parent"),
        "max_rounds": Knob("int", 6, 1, 200),
        "max_candidates": Knob("optional_int", None, 2, 2048, note="largest pool of a round, parents first"),
        "keep_parents": Knob("bool", True, note="parents compete with their children"),
        "pruning": Knob(
            "optional_enum",
            None,
            choices=_SCREENS,
            note="how a pool becomes a beam; as evaluation.mode says when null",
        ),
        "prune_threshold": Knob("float", 0.0, 0, 1, note="drop what is this far below the best; 0: off"),
        "candidate_reranker": Knob(
            "enum",
            "score",
            choices=("none", "score", "diversity", "hybrid"),
            note="the order of the survivors: as they were screened, by score, by MMR, by the places in both",
        ),
        "diversity_rate": Knob("float", 0.0, 0, 1, note="weight of being unlike the beam (MMR)"),
        "stochastic_temp": Knob("float", 0.0, 0, 10, note="Gumbel noise on the ranking; 0: off"),
        "evidence_cases": EVIDENCE,
        "gradients_per_beam": Knob(
            "int", 0, 0, 16, note="children of each parent made in two steps: a critique, then its application"
        ),
        "errors_per_gradient": Knob("int", 4, 1, 32, note="failures that a critique is shown"),
        "paraphrases_per_child": Knob("int", 0, 0, 8, note="rewordings of each child that join the pool"),
        "stagnation_restart": Knob(
            "int", 0, 0, 100, note="rounds without gain before the beam restarts from the best; 0: off"
        ),
        "operators": Knob(
            "weights",
            {"reflect": 0.8, "paraphrase": 0.1, "insert_phrase": 0.1},
            choices=OPERATORS,
            note="how often each operator makes a child",
        ),
        "adaptive_operators": ADAPTIVE,
        "edit_level": LEVEL,
        **COMMON,
    },
    "merge": {
        "max_rounds": Knob("int", 40, 1, 10_000, note="rounds"),
        "batches_per_round": Knob("int", 25, 1, 1000, note="batches, after which the best is scored on all of dev"),
        "first_proposals": Knob("int", 12, 1, 256, note="rewrites of the seed whose sentences are the first pool"),
        "proposals_per_step": Knob("int", 3, 1, 32, note="rewrites of the best prompt that are asked for with a batch"),
        "merges": Knob("int", 2, 1, 64, note="prompts of a batch: the best by what is believed, the others by draws"),
        "probe_cases": Knob("int", 5, 1, 256, note="cases that a prompt of a batch is asked about"),
        "max_changes": Knob("int", 8, 1, 64, note="sentences by which a prompt of a batch differs from a known one"),
        "exploration": Knob("float", 0.6, 0, 2, note="how far a draw goes from what is believed: 1 is a whole draw"),
        "evidence_cases": replace(EVIDENCE, note="train cases of the seed, and first those of what may lead next"),
        "operators": Knob(
            "weights", {"reflect": 1.0}, choices=OPERATORS, note="how often each operator makes a rewrite"
        ),
        "edit_level": replace(LEVEL, note="what is merged, and what an edit takes as one unit"),
        **COMMON,
        "errors_in_context": replace(COMMON["errors_in_context"], default=12),
        "near_dup": replace(COMMON["near_dup"], default=0.998),
    },
    "anneal": {
        "epochs": Knob("int", 40, 1, 10_000, note="temperatures"),
        "moves_per_temp": Knob("int", 1, 1, 100, note="moves at each temperature"),
        "proposals_per_step": Knob("int", 4, 1, 64, note="children of a move, of which one is drawn (multiple-try)"),
        "chains": Knob("int", 2, 1, 64, note="walks side by side"),
        "exchange_every": Knob("int", 0, 0, 1000, note="epochs after which the worst chain joins the best; 0: never"),
        "acceptance": Knob(
            "enum",
            "metropolis",
            choices=("metropolis", "noisy_metropolis", "threshold", "late_acceptance", "greedy"),
            note="when a move is made",
        ),
        "schedule": Knob(
            "enum",
            "geometric",
            choices=("geometric", "linear", "cosine", "logarithmic", "adaptive"),
            note="how the temperature falls",
            only=_HOT,
        ),
        "initial_temp": Knob(
            "optional_float", None, 0, 10, open_low=True, note="in units of score; null or auto: measured", only=_HOT
        ),
        "min_temp": Knob("float", 0.002, 0, 10, note="the temperature never falls below it", only=_HOT),
        "cooling_rate": Knob(
            "float", 0.92, 0, 1, open_low=True, note="factor per epoch", only={"schedule": ("geometric",), **_HOT}
        ),
        "step_size": Knob(
            "optional_float",
            None,
            0,
            10,
            open_low=True,
            note="fall per epoch; down to min_temp at the end when null",
            only={"schedule": ("linear",), **_HOT},
        ),
        "target_acceptance": Knob(
            "float",
            0.3,
            0.001,
            0.999,
            note="share of moves accepted at first; falls to 0.02",
            only={"schedule": ("adaptive",), **_HOT},
        ),
        "window": Knob(
            "int", 10, 2, 200, note="moves that the share is taken over", only={"schedule": ("adaptive",), **_HOT}
        ),
        "calibration_moves": Knob(
            "int", 6, 2, 50, note="children of the seed that initial_temp is taken from", only=_HOT
        ),
        "initial_acceptance": Knob(
            "float", 0.5, 0.05, 0.95, note="share of worsening moves accepted at initial_temp", only=_HOT
        ),
        "noise_penalty": Knob(
            "float",
            1.0,
            0,
            4,
            note="how much doubt about a difference counts against a move",
            only={"acceptance": ("noisy_metropolis",)},
        ),
        "threshold": Knob(
            "float",
            0.02,
            0,
            1,
            note="how much worse a move may be at first; falls to 0",
            only={"acceptance": ("threshold",)},
        ),
        "history": Knob(
            "int",
            10,
            1,
            1000,
            note="a move must not be worse than the value this many moves ago",
            only={"acceptance": ("late_acceptance",)},
        ),
        "reheat_stall_steps": Knob("int", 8, 1, 1000, note="moves of a chain without a new best before it is reheated"),
        "reheat_factor": Knob("float", 0.5, 0, 1, open_low=True, note="of initial_temp", only=_HOT),
        "reheat_max": Knob("int", 3, 0, 100, note="reheats of a chain, each from its best"),
        "neighbourhood": Knob("enum", "mixed", choices=("llm", "edit", "mixed"), note="who makes the moves"),
        "edit_weight": Knob("float", 0.5, 0, 1, note="share of edits", only={"neighbourhood": ("mixed",)}),
        "edits_per_move": Knob(
            "int", 1, 1, 10, note="edits one after another", only={"neighbourhood": ("edit", "mixed")}
        ),
        "neighbourhood_scale": Knob(
            "enum",
            "temperature",
            choices=("fixed", "temperature"),
            note="large rewrites when hot and single edits when cold, or the same all along",
        ),
        "evidence_cases": EVIDENCE,
        "operators": Knob(
            "weights",
            {"reflect": 0.6, "paraphrase": 0.1, "shorten": 0.1, "fresh_start": 0.1, **dict.fromkeys(EDITS, 0.1)},
            choices=OPERATORS,
            note="how often each operator makes a move, among those of its kind",
        ),
        "adaptive_operators": ADAPTIVE,
        "edit_level": LEVEL,
        **COMMON,
    },
    "genetic": {
        "population_size": Knob("int", 8, 2, 512),
        "generations": Knob("int", 8, 1, 1000),
        "offspring": Knob(
            "optional_int",
            None,
            1,
            1024,
            note="children of a generation; population_size - elitism when null",
            only={"replacement": ("generational", "plus")},
        ),
        "init": Knob(
            "enum",
            "paraphrase",
            choices=("paraphrase", "fresh_start", "edit", "mixed", "provided"),
            note="how the first population is made from the seed",
        ),
        "initial_prompts": Knob(
            "texts", [], note="texts of the first component, for init provided", only={"init": ("provided",)}
        ),
        "selection": Knob(
            "enum",
            "tournament",
            choices=("tournament", "roulette", "rank", "truncation", "pareto_instance"),
            note="how parents are drawn",
        ),
        "tournament_size": Knob("int", 3, 2, 512, note="the best of so many", only={"selection": ("tournament",)}),
        "rank_pressure": Knob(
            "float",
            1.7,
            1,
            2,
            open_low=True,
            note="children of the best, as a multiple of the mean",
            only={"selection": ("rank",)},
        ),
        "roulette_scaling": Knob(
            "enum",
            "sigma",
            choices=("none", "shift_min", "sigma", "softmax"),
            note="what a share of the wheel is proportional to",
            only={"selection": ("roulette",)},
        ),
        "softmax_temp": Knob(
            "float",
            0.1,
            0,
            10,
            open_low=True,
            note="of the softmax, in units of score",
            only={"roulette_scaling": ("softmax",)},
        ),
        "crossover_rate": Knob("float", 0.7, 0, 1, note="share of children with two parents"),
        "crossover_operator": Knob(
            "enum",
            "llm",
            choices=("one_point", "two_point", "uniform", "component", "llm", "de"),
            note="how two texts become one",
        ),
        "uniform_prob": Knob(
            "float",
            0.5,
            0.001,
            0.999,
            note="chance that a unit is the second parent's",
            only={"crossover_operator": ("uniform",)},
        ),
        "mutation_rate": Knob("float", 0.5, 0, 1, note="share of children that are changed; of one parent, all are"),
        "adaptive_mutation": Knob(
            "bool", False, note="the rate x 1.5 after a generation without gain, x 0.8 after one with"
        ),
        "mutation_min": Knob("float", 0.1, 0, 1, note="lowest rate", only={"adaptive_mutation": (True,)}),
        "mutation_max": Knob("float", 0.8, 0, 1, note="highest rate", only={"adaptive_mutation": (True,)}),
        "mutation_mix": Knob(
            "weights",
            {"reflect": 0.5, "paraphrase": 0.2, "edit": 0.3},
            choices=(*(name for name in LLM_OPERATORS if name != "crossover_llm"), "edit"),
            note="how often each operator changes a child",
        ),
        "adaptive_operators": ADAPTIVE,
        "elitism": Knob("int", 1, 0, 511, note="the best that no child can displace"),
        "replacement": Knob(
            "enum",
            "plus",
            choices=("generational", "plus", "steady_state"),
            note="children replace all, or compete with all, or each has the place of the worst once it is scored",
        ),
        "async_window": Knob(
            "optional_int",
            None,
            1,
            512,
            note="children on their way at once; half of population_size when null",
            only={"replacement": ("steady_state",)},
        ),
        "min_distance": Knob("float", 0.03, 0, 1, note="a child nearer than this to a member is no candidate"),
        "diversity_threshold": Knob(
            "float", 0.3, 0, 1, note="mean distance of the members below which immigrants come"
        ),
        "immigrants": Knob("float", 0.1, 0, 1, note="of the population, fresh starts"),
        "sharing_sigma": Knob("float", 0.0, 0, 1, note="members nearer than this share their fitness; 0: off"),
        "restart_stall": Knob("int", 2, 0, 1000, note="generations without gain before a restart; 0: never"),
        "restart_keep": Knob("int", 1, 1, 512, note="the best that a restart keeps; the others are fresh starts"),
        "survivors_by": Knob(
            "optional_enum",
            None,
            choices=("score", "halving", "racing"),
            note="how children are screened, score on all of dev; as evaluation.mode says when null",
        ),
        "evidence_cases": EVIDENCE,
        "edit_level": LEVEL,
        **COMMON,
    },
    "gepa": {
        "reflection_minibatch_size": Knob("int", 8, 1, 64, note="train cases of a gate"),
        "parents_per_step": Knob("int", 2, 1, 16, note="parents of an iteration"),
        "mutations_per_step": Knob("int", 2, 1, 16, note="children of each parent"),
        "candidate_selection": Knob(
            "enum",
            "pareto",
            choices=("pareto", "current_best", "epsilon_greedy", "top_k_pareto"),
            note="who becomes a parent",
        ),
        "epsilon": Knob(
            "float", 0.1, 0, 1, note="chance of any parent at all", only={"candidate_selection": ("epsilon_greedy",)}
        ),
        "top_k": Knob(
            "int", 5, 1, 1000, note="of the front, the best by mean", only={"candidate_selection": ("top_k_pareto",)}
        ),
        "frontier": Knob(
            "enum",
            "instance",
            choices=("instance", "objective", "hybrid", "cartesian"),
            note="who is on the front: the best on a case, by a scorer, on either, on a case by a scorer",
        ),
        "acceptance": Knob(
            "enum",
            "strict",
            choices=("strict", "at_least", "tolerance", "paired"),
            note="the gate: child against parent on the minibatch",
        ),
        "tolerance": Knob(
            "float", 0.01, 0, 0.5, note="how much worse a child may be", only={"acceptance": ("tolerance",)}
        ),
        "paired_z": Knob(
            "float", 1.0, 0, 3, note="standard errors by which a child must be better", only={"acceptance": ("paired",)}
        ),
        "module_selector": Knob(
            "enum", "round_robin", choices=("round_robin", "all"), note="which texts a child has rewritten"
        ),
        "use_merge": Knob("bool", False, note="also join two descendants of one ancestor, text by text"),
        "max_merges": Knob("int", 5, 1, 1000, note="merges that pass the gate", only={"use_merge": (True,)}),
        "val_cases": Knob("optional_int", None, 1, 10_000, note="dev cases that the front is made of; all when null"),
        "perfect_score": Knob(
            "float",
            1.0,
            0,
            1,
            open_low=True,
            note="score of a case that needs no improvement",
            only={"skip_perfect": (True,)},
        ),
        "skip_perfect": Knob("bool", True, note="no child from a minibatch that is all perfect"),
        "stall_iterations": Knob("int", 10, 1, 1000, note="iterations without a child through the gate, then the end"),
        "max_rounds": Knob("int", 50, 1, 1000, note="iterations"),
        **COMMON,
    },
    "mcts": {
        "simulations": Knob("int", 20, 1, 200, note="ways down the tree"),
        "max_depth": Knob("int", 4, 1, 10, note="generations below the seed"),
        "exploration_c": Knob("float", 0.3, 0.05, 5, note="UCT: weight of what was seldom visited"),
        "candidates_per_node": Knob("int", 3, 1, 10, note="children of a node"),
        "score_dedup_bin": Knob("float", 0.1, 0.01, 0.5, note="siblings within one bin of this width are one"),
        "early_stop_no_improve": Knob("int", 5, 1, 50, note="simulations without a better reward, then the end"),
        "token_budget": Knob("optional_int", None, 1, 1_000_000, note="tokens after which no simulation begins"),
        "evidence_cases": Knob("int", 16, 1, 256, note="train cases run per node to find failures"),
        "operators": Knob("weights", {"reflect": 1.0}, choices=OPERATORS, note="how often each operator makes a child"),
        "adaptive_operators": ADAPTIVE,
        "edit_level": LEVEL,
        **COMMON,
    },
}
