"""The settings that searches share: evaluation, split and early stopping, and the knobs that most of them have."""

from collections.abc import Mapping

from shared.knob_values import Knob

# What asks a model for a text out of one parent; what needs no model and costs nothing.
LLM_OPERATORS = (
    *("reflect", "paraphrase", "fresh_start", "shorten", "elaborate", "restructure"),
    *("induce_rules", "opro", "crossover_llm"),
)
EDITS = ("delete", "swap", "move", "duplicate", "add_back", "insert_phrase", "format_toggle")
OPERATORS = (*LLM_OPERATORS, *EDITS)

EVALUATION: Mapping[str, Knob] = {
    "mode": Knob(
        "enum",
        "halving",
        choices=("full", "minibatch", "halving", "racing", "ucb"),
        note="score everything, or a few cases each, or drop losers early by one of three rules",
    ),
    "min_cases": Knob("int", 16, 1, 10_000, note="cases of the first rung or block, of all of a minibatch"),
    "max_cases": Knob("optional_int", None, 1, 10_000, note="of the dev split; all when null"),
    "eta": Knob("int", 2, 2, 8, note="halving: keep 1/eta, give survivors eta times the cases"),
    "block_size": Knob("int", 8, 2, 256, note="racing, ucb, successive_rejects: cases given at a time"),
    "alpha": Knob("float", 0.1, 0.001, 0.3, note="racing: significance at which a loser is dropped"),
    "test": Knob(
        "enum",
        "paired_t",
        choices=("paired_t", "wilcoxon", "sign", "permutation"),
        note="racing: the paired test, one-sided",
    ),
    "ucb_c": Knob("float", 1.0, 0, 10, note="ucb: weight of what is uncertain, mean + c sqrt(ln t / n)"),
    "ucb_rounds": Knob("int", 8, 1, 200, note="ucb: how often blocks are given to the most promising"),
    "repeats": Knob("int", 1, 1, 10, note="answers per case, each scored"),
    "case_order": Knob(
        "enum",
        "stratified",
        choices=("fixed", "stratified", "shuffled_per_round"),
        note="which cases come first",
    ),
    "lcb_z": Knob("float", 0.0, 0, 3, note="rank by mean - z standard errors"),
    "missing_tolerance": Knob("float", 0.2, 0, 1, note="share of failed calls that a candidate may have"),
    "generalization_check_every": Knob(
        "int", 0, 0, 1000, note="rounds until the best is scored on a part of dev that decides nothing; 0: never"
    ),
}

SPLIT: Mapping[str, Knob] = {
    "train_fraction": Knob("float", 0.3, 0, 1, note="shown to the proposer"),
    "dev_fraction": Knob("float", 0.4, 0, 1, note="decides the search"),
    "holdout_fraction": Knob("float", 0.3, 0, 1, note="confirms the result; nothing in the search sees it"),
    "split_seed": Knob("int", 0, 0, 2**31 - 1),
    "stratify_by": Knob("optional_text", None, note="what each part has its share of; null: the value expected"),
    "group_by": Knob("optional_text", None, note="who has the same stays in one part; null: the group of the case"),
    "allow_tiny": Knob("bool", False, note="search with fewer than 10 cases, 2 at least, and claim nothing"),
}

EARLY_STOPPING: Mapping[str, Knob] = {
    "patience": Knob("int", 5, 1, 1000, note="rounds without gain before the search ends"),
    "min_delta": Knob("float", 0.005, 0, 1, note="what counts as a gain"),
    "target_score": Knob("optional_float", None, 0, 1, open_low=True, note="stop when the best reaches it"),
}

ONLY_IN_MODE: Mapping[str, tuple[str, ...]] = {
    "eta": ("halving",),
    "block_size": ("racing", "ucb", "successive_rejects"),
    "alpha": ("racing",),
    "test": ("racing",),
    "ucb_c": ("ucb",),
    "ucb_rounds": ("ucb",),
}

COMMON: Mapping[str, Knob] = {
    "components": Knob("optional_names", None, note="messages that may be rewritten, by role or name; all when null"),
    "proposer_temperature": Knob("float", 1.0, 0, 2),
    "errors_in_context": Knob("int", 4, 1, 32, note="failures shown to the proposer"),
    "repair_attempts": Knob("int", 1, 0, 3, note="times a rewrite that broke the template is sent back"),
    "length_penalty": Knob("float", 0.0, 0, 2, note="subtracts penalty x (length / seed length) / 10"),
    "max_growth": Knob("float", 4.0, 1, 100, note="longest text, as a multiple of the seed's"),
    "max_prompt_tokens": Knob("optional_int", None, 1, 10_000_000, note="a longer prompt is no candidate; null: any"),
    "near_dup": Knob("float", 0.97, 0.5, 1, note="texts more alike than this are one"),
    "finalists": Knob("int", 3, 1, 10, note="candidates scored on the whole dev split before the choice"),
}
EVIDENCE = Knob("int", 16, 1, 256, note="train cases run per parent to find failures")
ADAPTIVE = Knob("bool", False, note="operators that made better children are used more (Thompson sampling)")
LEVEL = Knob("enum", "sentence", choices=("sentence", "line", "section"), note="what an edit takes as one unit")
