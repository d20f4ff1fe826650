"""One step of a search: results in, the reducer's decision out, its work fanned out. Durable by replay:
the state, the candidates and the work of a step are written in the transaction that ends its job."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import knobs, scoring, stats
from shared.db import db_now
from shared.domain import controls, datasets, events, judges, prompts, providers, runs, takeovers
from shared.domain.budgets import NANO
from shared.domain.content import check_content, components_of, content_from, message_templates, render_messages
from shared.domain.datasets import RunCase
from shared.domain.events import Change
from shared.domain.executions import NewExecution
from shared.domain.judges import Quotes
from shared.domain.leases import Lease
from shared.domain.providers import Quote
from shared.domain.runs import Collected, Spend, Unit
from shared.errors import PromptmillError
from shared.models import LIVE_STATES, Candidate, JobKind, Optimization, State, Version, new_id
from shared.scoring import Ask, Missing
from shared.splits import draw
from worker.steps import Done, Failure, Verdict, judging, timing
from worker.steps import genes as genetics
from worker.steps.evaluations import step_failure
from worker.strategies import STRATEGIES, cautions, search
from worker.strategies.contract import Case, Evaluate, Genes, Problem, Propose, Result, Spent, Step, Work
from worker.strategies.record import Record


@dataclass(frozen=True)
class Loaded:
    """All that a step decides by: the run, what it may cost, what it has spent, its state, and the results."""

    optimization: Optimization
    version: Version
    cases: Sequence[RunCase]
    task: Quote
    proposer: Quote
    others: Mapping[str, Quote]  # by name, the models that a candidate may ask for in place of the task's
    judges: Quotes
    spend: Spend
    budget: Mapping[str, Any]
    state: Mapping[str, Any] | None
    charged: Spend | None = None  # what its ledger holds, where that is not what it has spent
    paid: frozenset[str] = frozenset()  # keys of work that costs nothing
    collected: Sequence[Collected] = ()
    replies: Sequence[Collected] = ()  # of judges, about what was collected
    late: bool = False  # time is up


@dataclass(frozen=True)
class _Asking:
    """The answers are there, and judges are asked about them before the search hears of any."""

    units: Sequence[Unit]


@dataclass(frozen=True)
class _Measured:
    """A candidate on dev as far as it was scored: per case, by the weights of the cases, as the search ranks it."""

    cases: int
    mean: float | None
    standard_error: float | None


@dataclass(frozen=True)
class _Advanced:
    step: Step
    units: Sequence[Unit]
    scores: Sequence[Mapping[str, Any]]
    measured: Sequence[_Measured]  # of the candidates of the state, in their order
    budget: Mapping[str, Any]  # that it was decided by
    cautions: Mapping[str, Any]  # of the result, when there is one


def load(session: Session, leases: Sequence[Lease]) -> Mapping[int, Any]:
    loaded = {}
    for lease in leases:
        optimization = session.get_one(Optimization, lease.subject_id)
        if optimization.state not in LIVE_STATES:  # a step that had begun when the run was paused ends
            continue
        step_no = lease.step_no or 1
        collected, replies = runs.collect(session, optimization.id, step_no), []
        if judging.is_about_answers(collected):
            collected, replies = runs.collect(session, optimization.id, step_no - 1), collected
        late = timing.is_late(session, optimization, collected)
        basis = load_basis(session, optimization)
        loaded[lease.job_id] = replace(basis, collected=collected, replies=replies, late=late)
    return loaded


def load_basis(session: Session, optimization: Optimization) -> Loaded:
    """What every step of a search rests on, as it now stands; without results."""
    spec = optimization.spec
    return Loaded(
        optimization,
        session.get_one(Version, optimization.version_id),
        _cases(session, optimization),
        providers.quote(session, spec["model"]["provider"], spec["model"]["model_name"]),
        providers.quote(session, spec["proposer"]["provider"], spec["proposer"]["model_name"]),
        {name: providers.quote(session, spec["model"]["provider"], name) for name in knobs.models_of(spec["knobs"])},
        judges.quotes_of(session, spec["scorers"]),
        runs.logical_spend_of(session, optimization.id),
        spec["budget"],
        optimization.search_state,
        takeovers.charged_to(session, optimization),
        takeovers.paid_keys(session, optimization),
    )


def run(lease: Lease, loaded: Loaded) -> _Advanced | _Asking:
    caller = _Calls(loaded)
    if questions := questions_of(loaded, caller):
        return _Asking(questions)
    problem, decided, scores = decide(loaded, caller)
    texts = {candidate["hash"]: candidate["components"] for candidate in decided.state["candidates"]}
    units = [caller.unit(work, texts) for work in decided.work]
    record = Record(problem, decided.state)
    told = cautions.told_of(record) if decided.finished else {}
    return _Advanced(decided, units, scores, measured_in(record), loaded.budget, told)


def questions_of(loaded: Loaded, caller: "_Calls | None" = None) -> Sequence[Unit]:
    """What judges are to be asked about the answers before the search hears of any; none once they have replied."""
    if not loaded.judges or loaded.replies:
        return ()
    caller = caller or _Calls(loaded)
    return judging.questions(loaded.optimization.spec["scorers"], _answered(loaded), caller.question)


def decide(loaded: Loaded, caller: "_Calls | None" = None) -> tuple[Problem, Step, list[dict[str, Any]]]:
    """What the search decides by these results, and their scores for the rows of the work items. Pure."""
    caller = caller or _Calls(loaded)
    optimization = loaded.optimization
    problem = Problem(
        spec={**optimization.spec, "budget": loaded.budget},
        components=components_of(loaded.version.content),
        cases=[
            Case(case.ordinal, case.inputs, case.expected, case.group, case.weight, case.tags) for case in loaded.cases
        ],
        price=caller.price,
        questions=caller.questions,
        tokens_of=caller.tokens_of,
        problem_with=caller.problem_with,
        problem_with_genes=caller.problem_with_genes,
        paid=loaded.paid,
    )
    strategy = STRATEGIES[optimization.strategy]
    results, scores = _results(loaded)
    charged = None if loaded.charged is None else _spent(loaded.charged)
    if loaded.state is None:
        return problem, search.start(problem, strategy, charged=charged), scores
    step = search.step(
        problem, strategy, loaded.state, results, _spent(loaded.spend), charged=charged, late=loaded.late
    )
    return problem, step, scores


def _spent(spend: Spend) -> Spent:
    return Spent(spend.task_calls, spend.proposer_calls, spend.tokens, spend.nano, spend.judge_calls)


def finish(session: Session, done: Sequence[Done]) -> Mapping[int, Verdict]:
    verdicts = {}
    timing.lock(session, [item.job for item in done])
    for item in done:
        job, outcome = item.job, item.outcome
        optimization = session.get_one(Optimization, job.subject_id, with_for_update=True)
        if optimization.state not in LIVE_STATES:
            verdicts[job.id] = Verdict(State.CANCELED)
        elif isinstance(outcome, Failure):
            verdicts[job.id] = step_failure(job, outcome)
        elif isinstance(outcome, _Asking):
            optimization.step_no = job.step_no or 1
            timing.lift_deadline(session, optimization)
            _fan_out(session, optimization, (job.step_no or 1) + 1, outcome.units)
            verdicts[job.id] = Verdict(State.SUCCEEDED)
        elif isinstance(outcome, _Advanced):
            _write(session, optimization, outcome, job.step_no or 1)
            verdicts[job.id] = Verdict(State.SUCCEEDED)
        else:
            verdicts[job.id] = Verdict(State.CANCELED)
    return verdicts


class _Calls:
    """Turns units of work into calls: renders, prices and checks candidates. Pure, and cached within a step."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._cases = {case.ordinal: case for case in loaded.cases}
        self._variables = set(loaded.version.variables)
        self._content = loaded.version.content
        # What a candidate offers the model besides its messages is what the seed offers.
        self._beside = {name: self._content.get(name) for name in ("tools", "response_schema")}
        self._render = lru_cache(maxsize=None)(self._rendered)
        self._asks = lru_cache(maxsize=None)(self._asked)
        # The content with the demonstrations is made once for all cases.
        self._demonstrated = lru_cache(maxsize=None)(self._with_demonstrations)

    def price(self, components: Mapping[str, str], work: Work) -> tuple[int, int]:
        spec = self._loaded.optimization.spec
        if isinstance(work, Propose):
            return providers.upper_bound(self._loaded.proposer, work.messages, spec["proposer"]["params"])
        messages = self._messages(components, work)
        if isinstance(messages, str):
            return 0, 0
        model, params = self._model(work.genes)
        tokens, nano = providers.upper_bound(model, messages, params, **self._beside)
        judged = [
            judges.bound_of(self._loaded.judges, ask) for ask in self._asks(work.case, judges.longest_answer(params))
        ]
        return tokens + sum(bound[0] for bound in judged), nano + sum(bound[1] for bound in judged)

    def questions(self, work: Work) -> int:
        if isinstance(work, Propose):
            return 0
        _, params = self._model(work.genes)
        return len(self._asks(work.case, judges.longest_answer(params)))

    def tokens_of(self, components: Mapping[str, str], genes: Genes) -> int:
        return providers.prompt_bound(message_templates(self._demonstrated(*_hashable(components, genes))))

    def problem_with(self, components: Mapping[str, str]) -> str | None:
        content = content_from(self._content, components)
        try:
            checked = check_content(template_source=content.get("template_source"), messages=content.get("messages"))
        except PromptmillError as error:
            return f"not a valid template: {error.detail}"[:200]
        if set(checked.variables) != self._variables:
            return f"variables changed from {sorted(self._variables)} to {list(checked.variables)}"[:200]
        return None

    def problem_with_genes(self, components: Mapping[str, str], genes: Genes) -> str | None:
        """Why these texts cannot be sent with these demonstrations and settings; None when they can."""
        try:
            model, params = self._model(genes)
            providers.check_params(model, params)
            if genes.demos:
                check_content(**self._demonstrated(*_hashable(components, genes)))
        except PromptmillError as error:
            return error.detail[:200]
        return None

    def question(self, ask: Ask) -> NewExecution:
        quote = judges.quote_of(self._loaded.judges, ask)
        return self._call(quote, judges.params_of(quote, ask), ask.messages, ask.purpose, ask.sample, {})

    def _asked(self, ordinal: int, longest: int) -> Sequence[Ask]:
        return judges.asked_about(self._loaded.optimization.spec["scorers"], self._cases[ordinal], longest)

    def unit(self, work: Work, texts: Mapping[str, Mapping[str, str]]) -> Unit:
        if isinstance(work, Propose):
            return Unit(work.key, "propose", self._proposal(work), candidate=work.parent)
        case = self._cases[work.case]
        messages = self._messages(texts[work.candidate], work)
        call = None if isinstance(messages, str) else self._evaluation(work, case, messages)
        problem = messages if isinstance(messages, str) else ""
        return Unit(work.key, "evaluate", call, work.candidate, case.id, work.repeat, problem)

    def _model(self, genes: Genes) -> tuple[Quote, dict[str, Any]]:
        """The model that a candidate with these genes is run on, with its settings."""
        name = genes.params.get("model_name")
        own = {setting: value for setting, value in genes.params.items() if setting != "model_name"}
        model = self._loaded.task if name in (None, self._loaded.task.model_name) else self._loaded.others[name]
        return model, {**self._loaded.optimization.spec["model"]["params"], **own}

    def _messages(self, components: Mapping[str, str], work: Evaluate) -> list[dict[str, str]] | str:
        return self._render(*_hashable(components, work.genes), work.case)

    def _with_demonstrations(self, components: tuple[tuple[str, str], ...], demos: tuple[Any, ...]) -> dict[str, Any]:
        content = content_from(self._content, dict(components))
        inputs = {ordinal: self._cases[ordinal].inputs for ordinal, _ in demos}
        return genetics.demonstrated(content, [{"case": case, "output": output} for case, output in demos], inputs)

    def _rendered(
        self, components: tuple[tuple[str, str], ...], demos: tuple[Any, ...], ordinal: int
    ) -> list[dict[str, str]] | str:
        """The messages, or why this candidate cannot be rendered for this case."""
        try:
            content = self._demonstrated(components, demos)
            return render_messages(content, self._cases[ordinal].inputs)
        except PromptmillError as error:
            return f"cannot be rendered: {error.detail}"[:500]

    def _evaluation(self, work: Evaluate, case: RunCase, messages: Sequence[Mapping[str, str]]) -> NewExecution:
        model, params = self._model(work.genes)
        # The first scoring is the same in runs of any seed, so that these are compared on equal answers.
        again = work.repeat >= self._loaded.optimization.spec["evaluation"]["repeats"]
        sample = self._of_seed(work.repeat) if again else work.repeat
        return self._call(model, params, messages, "evaluation", sample, case.inputs, **self._beside)

    def _proposal(self, work: Propose) -> NewExecution:
        spec = self._loaded.optimization.spec
        sample = self._of_seed(work.slot)
        return self._call(self._loaded.proposer, spec["proposer"]["params"], work.messages, "proposal", sample, {})

    def _of_seed(self, number: int) -> int:
        """The sample number of a wanted answer, so that another seed draws others where all else is the same."""
        spec = self._loaded.optimization.spec
        if not spec.get("seeded_samples"):
            return number
        return draw(spec["seed"], "samples").getrandbits(30) + number

    def _call(
        self,
        model: Quote,
        params: Mapping[str, Any],
        messages: Sequence[Mapping[str, str]],
        purpose: str,
        sample: int,
        variables: Mapping[str, Any],
        **beside: Any,
    ) -> NewExecution:
        optimization = self._loaded.optimization
        return NewExecution(
            workspace_id=optimization.workspace_id,
            model=model,
            params=params,
            messages=messages,
            **beside,
            purpose=purpose,
            environment="optimization",
            project_id=optimization.project_id,
            prompt_id=optimization.prompt_id,
            scope_id=optimization.id,
            variables=variables,
            sample=sample,
            budget_id=optimization.budget_id,
            created_by=optimization.created_by,
        )


def _answered(loaded: Loaded) -> list[judging.Cell]:
    cases = {case.id: case for case in loaded.cases}
    return [
        (item, cases[item.test_case_id])
        for item in loaded.collected
        if item.kind == "evaluate" and item.text is not None and item.test_case_id is not None
    ]


def _hashable(components: Mapping[str, str], genes: Genes) -> tuple[tuple[tuple[str, str], ...], tuple[Any, ...]]:
    demos = tuple((demo["case"], demo["output"]) for demo in genes.demos)
    return tuple(sorted(components.items())), demos


def _results(loaded: Loaded) -> tuple[list[Result], list[dict[str, Any]]]:
    """What the reducer is told, and the same scores for the rows of the work items."""
    answered = _answered(loaded)
    scored = judging.scored(loaded.optimization.spec["scorers"], answered, loaded.replies)
    by_item = {item.item_id: result for (item, _), result in zip(answered, scored, strict=True)}
    results = []
    for item in loaded.collected:
        result = by_item.get(item.item_id)
        if result is None or isinstance(result, Missing):
            results.append(Result(item.key, output=item.text))
        else:
            measures = (round((item.facts.cost_usd or 0) * NANO), item.facts.latency_ms or 0)
            told = (item.text, result.value, result.passed, result.feedback, *measures)
            results.append(Result(item.key, *told, parts=scoring.by_objective(result)))
    return results, [judging.row(item, by_item[item.item_id]) for item, _ in answered]


def measured_in(record: Record) -> list[_Measured]:
    """Of every candidate, in their order."""
    found = []
    for candidate in record.candidates:
        scores, weights = record.scores(candidate, record.dev), record.weights(candidate, record.dev)
        found.append(
            _Measured(len(scores), stats.mean(scores, weights), stats.standard_error(scores, weights))
            if scores
            else _Measured(0, None, None)
        )
    return found


def _write(session: Session, optimization: Optimization, advanced: _Advanced, step_no: int) -> None:
    state = advanced.step.state
    changes = [
        Change(optimization.workspace_id, kind, optimization.id, dict(data)) for kind, data in advanced.step.events
    ]
    runs.record_scores(session, advanced.scores)
    _write_candidates(session, optimization, state, advanced.measured)
    values: dict[str, Any] = {
        "step_no": step_no,
        "search_state": state,
        "progress": _progress(optimization, state, advanced.measured),
        "ceilings": controls.in_force(optimization.ceilings, advanced.budget, step_no),
    }
    if advanced.step.finished:
        values |= _ending(session, optimization, state)
        values["result"] = {**state["result"], **advanced.cautions}
        changes.append(
            Change(
                optimization.workspace_id,
                f"optimization.{values['state']}",
                optimization.id,
                {"finish_reason": state["finish_reason"], "verdict": state["result"]["verdict"]},
            )
        )
    else:
        timing.set_deadline(session, optimization, state)
        _fan_out(session, optimization, step_no + 1, advanced.units)
    session.execute(sa.update(Optimization).where(Optimization.id == optimization.id).values(**values))
    events.record(session, changes)


def _fan_out(session: Session, optimization: Optimization, step_no: int, units: Sequence[Unit]) -> None:
    runs.fan_out(
        session,
        workspace_id=optimization.workspace_id,
        kind=JobKind.OPTIMIZATION,
        subject_id=optimization.id,
        step_no=step_no,
        units=units,
        reuse=takeovers.reuse_of(optimization),
    )


def _ending(session: Session, optimization: Optimization, state: Mapping[str, Any]) -> dict[str, Any]:
    """The end of a run. A best prompt other than the seed becomes a version; no label is moved."""
    failed = state["finish_reason"] in ("scoring_failed", "proposer_failed") and not state["curve"]
    best = next(item for item in state["candidates"] if item["hash"] == state["result"]["best"])
    version_id = optimization.version_id
    if best["operator"] != "seed":
        seed = session.get_one(Version, optimization.version_id)
        body = content_from(seed.content, best["components"])
        genes = Genes(best.get("demos", ()), best.get("params", {}))
        if genes.demos:
            shown = {case.ordinal: case.inputs for case in _cases(session, optimization)}
            body = genetics.demonstrated(body, genes.demos, shown)
        if genes.params:
            body["model"] = genetics.settings(optimization.spec["model"], genes.params)
        content = check_content(**body)
        version_id = prompts.add_version(
            session,
            optimization.prompt_id,
            content,
            author=optimization.created_by,
            message=f"optimization {optimization.id}: {state['result']['verdict']}",
        ).id
    return {
        "state": State.FAILED if failed else State.SUCCEEDED,
        "error_type": state["finish_reason"] if failed else None,
        "error_message": "too many calls failed; see its executions" if failed else None,
        "finish_reason": state["finish_reason"],
        "best_version_id": version_id,
        "completed_at": db_now(),
    }


def _cases(session: Session, optimization: Optimization) -> Sequence[RunCase]:
    return datasets.cases_of(session, optimization.dataset_id, optimization.dataset_revision)


def _progress(optimization: Optimization, state: Mapping[str, Any], measured: Sequence[_Measured]) -> dict[str, Any]:
    """The best score is that of the incumbent, which is the seed until another is crowned: in a round, or after all."""
    baseline = measured[0].mean if state["incumbent"] else None
    means = {item["hash"]: found.mean for item, found in zip(state["candidates"], measured, strict=True)}
    return {
        "phase": state["phase"],
        "round": state["round"],
        "max_rounds": knobs.rounds_of(optimization.spec),
        "candidates": len(state["candidates"]),
        "rejected": state["rejected"],
        "best_score": means.get(state["incumbent"]),
        "baseline_score": baseline,
        **({"generalization": [item for item in state["checks"] if "gap" in item]} if "checks" in state else {}),
        "curve": state["curve"],
    }


def _write_candidates(
    session: Session, optimization: Optimization, state: Mapping[str, Any], measured: Sequence[_Measured]
) -> None:
    """Insert the new candidates and bring the others up to date, in two statements."""
    known = dict(
        session.execute(
            sa.select(Candidate.hash, Candidate.id).where(Candidate.optimization_id == optimization.id)
        ).all()
    )
    fresh, changed = [], []
    for ordinal, (item, found) in enumerate(zip(state["candidates"], measured, strict=True)):
        columns = {"decision": item["decision"], "reason": item["reason"], **asdict(found)}
        if item["hash"] in known:
            changed.append({"id": known[item["hash"]], **columns})
            continue
        fresh.append(
            {
                "id": new_id(),
                "workspace_id": optimization.workspace_id,
                "optimization_id": optimization.id,
                "ordinal": ordinal,
                "hash": item["hash"],
                "components": item["components"],
                "demos": item.get("demos", []),
                "params": item.get("params", {}),
                "parents": item["parents"],
                "operator": item["operator"],
                "round": item["round"],
                "lineage": item["lineage"],
                **columns,
            }
        )
    if fresh:
        session.execute(sa.insert(Candidate), fresh)
    if changed:
        session.execute(sa.update(Candidate), changed)
