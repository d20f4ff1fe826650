"""One worker process: claims jobs into its slots, keeps their leases, runs their steps, records outcomes.

The puller claims. Slot threads run steps. The recorder commits outcomes, those that end close together in
one transaction, and claims in it what their slots do next. The heartbeat renews leases and hears of cancels.
A slot is free again only when its outcome has been committed, so a killed process repeats at most
`concurrency` calls (I4).
"""

import math
import os
import queue
import random
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.orm import Session

from shared import metrics
from shared.config import settings
from shared.db import reading, transaction
from shared.domain import leases
from shared.domain.leases import Lease
from shared.errors import DatabaseBusy
from shared.models import JobKind, Queue
from worker.recording import record
from worker.steps import Canceled, Failure, Step, storable

CLAIM_AT_MOST = 200
RECORD_AT_MOST = 200
LINGER_SECONDS = 0.05  # how long an outcome may wait for others to be committed with it,
GAP_SECONDS = 0.02  # as long as they follow this close
HUNG_AFTER_SECONDS = 10.0  # past the provider's time-out, which bounds the silence between two bytes
STUCK_SECONDS = 30.0  # a process whose puller has not looked for so long is no consumer, though its heart beats
LOOK_EVERY_SECONDS = 0.1  # at all queues; between two looks a backlog is claimed from without one
_DATABASE_ERRORS = (DBAPIError, DatabaseBusy, NoConnectionFree)
_Key = tuple[int, int]  # job id and fence: the same job may be here twice, once with a lease that was lost

log = structlog.get_logger("worker")


@dataclass
class _Running:
    """A claimed job in this process."""

    lease: Lease
    renewed_at: float  # monotonic, when the claim or the last renewal began
    alone: bool = False  # quarantined: nothing else runs beside it
    started_at: float | None = None  # monotonic; once its step has begun, a call may have been sent
    lost: bool = False  # the lease could not be renewed


@dataclass(frozen=True)
class _Ended:
    """What the recorder is given. A cancel that the heartbeat heard of does not free the slot: the step
    that it overtakes still runs there, and its own outcome will come later and be dropped."""

    lease: Lease
    outcome: Any
    frees_slot: bool = True
    at: float = field(default_factory=time.monotonic)  # since when it waits to be committed


class Runner:
    def __init__(
        self,
        steps: Mapping[JobKind, Step],
        *,
        queues: Sequence[Queue],
        concurrency: int,
        sweep: Callable[[], None],
    ) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._steps = steps
        self._queues = [name for name in Queue if name in queues]  # in the order of claiming
        self._concurrency = concurrency
        self._sweep = sweep
        serves_batches = any(name != Queue.INTERACTIVE for name in self._queues)
        self._kept_for_interactive = (
            max(1, concurrency // 8) if Queue.INTERACTIVE in self._queues and serves_batches and concurrency > 1 else 0
        )
        self._running: dict[_Key, _Running] = {}
        self._turn_ends = -math.inf  # monotonic, as the next: when this process ends to hold others back
        self._empty_by = 0.0
        self._backlog: frozenset[Queue] = frozenset()  # the queues that had more than could be claimed
        self._looked_at = 0.0  # monotonic
        self._claiming = threading.Lock()  # from the count of the free slots until what was claimed fills them
        self._pulled_at = time.monotonic()  # when the puller last looked, and the database answered
        self._lock = threading.Lock()
        self._hints: dict[Queue, set[int]] = defaultdict(set)
        self._wakeup = threading.Event()
        self._draining = threading.Event()
        self._stopped = threading.Event()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[_Ended | None] = queue.SimpleQueue()
        # Daemon threads, unlike those of an executor, do not keep a process alive that should end while
        # a provider hangs.
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("puller", self._pull_for_ever),
                ("recorder", self._record_for_ever),
                ("heartbeat", self._beat_for_ever),
                ("sweeper", self._sweep_for_ever),
                *((f"slot-{i}", self._work_for_ever) for i in range(concurrency)),
            )
        ]

    # ---- what the process calls -------------------------------------------------------------

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        log.info(
            "worker_started",
            owner=self.owner,
            queues=[str(name) for name in self._queues],
            slots=self._concurrency,
        )

    def wake(self, job_ids: Sequence[int] = (), lane: str | None = None) -> None:
        """A message arrived: look now, at these jobs first. `lane`: all of them are of this queue."""
        with self._lock:
            for name in self._queues:
                if lane in (name, None):
                    self._hints[name].update(job_ids)
        self._wakeup.set()

    def drain(self) -> None:
        """Stop claiming. What runs goes on."""
        self._draining.set()
        self._wakeup.set()

    def stop(self, *, grace_seconds: float) -> None:
        """Drain, let running work finish within the grace period, give the rest back."""
        self.drain()
        deadline = time.monotonic() + grace_seconds
        while self._in_flight() and time.monotonic() < deadline:
            self._stopped.wait(0.05)
        self._stopped.set()
        self._outcomes.put(None)
        for _ in range(self._concurrency):
            self._work.put(None)
        for thread in self._threads[:3]:  # not the slots: a provider may hang there
            thread.join(timeout=5)
        with self._lock:  # by job, the newest lease
            by_fence = sorted(self._running.values(), key=lambda running: running.lease.fence)
            left = list({running.lease.job_id: running for running in by_fence}.values())
        self._give_back(left)
        log.info("worker_stopped", owner=self.owner, given_back=len(left))

    # ---- claiming ---------------------------------------------------------------------------

    def _pull_for_ever(self) -> None:
        while not self._draining.is_set():
            try:
                looked = self._pull()
                self._pulled_at = time.monotonic()
                pause = settings().poll_seconds * random.uniform(0.75, 1.25) if looked else LOOK_EVERY_SECONDS
            except _DATABASE_ERRORS as error:
                log.warning("claim_failed", error=_first_line(error))
                pause = 1.0
            except Exception:
                log.exception("claim_failed")
                pause = 1.0
            self._wakeup.wait(pause)
            self._wakeup.clear()

    def _pull(self) -> bool:
        """Claim what messages named, then whatever is due, up to the free slots. False: it looked at the backlog
        alone, and other queues are to be looked at soon.
        """
        with self._lock:
            alone = any(running.alone for running in self._running.values())
        if alone or not any(self._free_slots().values()):
            return True  # what messages named stays named until a slot is free
        with self._lock:
            hints, self._hints = self._hints, defaultdict(set)
        looks = self._must_look() or any(hints.values())
        if looks:
            with reading() as session:
                waiting = leases.waiting(session, self._queues)
            if waiting.quarantined and self._makes_room(others_are_due=bool(waiting.queues)):
                # A job that killed its workers runs with nothing beside it that it could take along.
                self._backlog = frozenset()
                if not self._in_flight():
                    self._pull_quarantined()
                return True
            self._backlog = waiting.queues
        named = [(name, sorted(hints[name])) for name in self._queues if hints[name]]
        for name, wanted in [*named, *((name, None) for name in self._queues)]:
            if name in self._backlog:
                # One claim per transaction: two would take locks of jobs and budgets in turns.
                self._claim(name, job_ids=wanted)
        return looks

    def _claim(self, name: Queue, *, limit: int = CLAIM_AT_MOST, **options: Any) -> list[Lease]:
        """Claim up to the free slots and start what was claimed, once that has been committed."""
        with self._claiming:
            room = min(self._free_slots()[name], limit)
            if room <= 0:
                return []
            claimed_at = time.monotonic()
            with transaction() as session:
                claim = leases.claim(
                    session, self.owner, queue=name, limit=room, lease_seconds=settings().job_lease_seconds, **options
                )
            self._start(claim.leases, claimed_at, alone=options.get("quarantined", False))
        if options.get("job_ids") is None and not claim.more:
            self._backlog -= {name}
        if claim.more and any(self._free_slots().values()):
            self._wakeup.set()
        return claim.leases

    def _claim_beside(self, session: Session, ending: Sequence[Lease]) -> list[Lease]:
        """Claim what the slots of these leases do next, in the transaction that records their outcomes.

        It waits for no lock, since it comes after those of the finish. What it leaves is the puller's: jobs that run
        alone, and all that a budget or a limit does not let through at once.
        """
        with self._lock:
            # By priority like the others: a look finds them.
            hinted, self._hints = any(self._hints.values()), defaultdict(set)
        if self._must_look() or hinted:
            waiting = leases.waiting(session, self._queues)
            self._backlog = frozenset() if waiting.quarantined else waiting.queues
        first = next((name for name in self._queues if name in self._backlog), None)
        room = 0 if first is None else min(self._free_slots(ending)[first], CLAIM_AT_MOST)
        if first is None or room <= 0:
            return []
        claimed = self._claim_at_once(session, first, room)
        if len(claimed) < room:
            self._backlog -= {first}
        return claimed

    def _claim_steps(
        self, session: Session, ending: Sequence[Lease], taken: int, steps: Mapping[Queue, Sequence[int]]
    ) -> list[Lease]:
        """The same for the steps that these outcomes have set off: nobody else sees them yet, and their runs wait."""
        claimed: list[Lease] = []
        for name in (name for name in self._queues if name in steps):
            room = self._free_slots(ending)[name] - taken - len(claimed)
            if room > 0:
                claimed += self._claim_at_once(session, name, room, job_ids=steps[name])
        return claimed

    def _claim_at_once(self, session: Session, name: Queue, room: int, **which: Any) -> list[Lease]:
        seconds = settings().job_lease_seconds
        return leases.claim_at_once(session, self.owner, queue=name, limit=room, lease_seconds=seconds, **which)

    def _may_claim_beside(self) -> bool:
        with self._lock:
            return not (self._draining.is_set() or any(running.alone for running in self._running.values()))

    def _must_look(self) -> bool:
        """Whether it is time to look at all queues. Then somebody does, and not again so soon."""
        now = time.monotonic()
        if self._backlog and now - self._looked_at <= LOOK_EVERY_SECONDS:
            return False
        self._looked_at = now
        return True

    def _makes_room(self, *, others_are_due: bool) -> bool:
        """Whether this process is there for quarantined jobs now, or will be once it is empty.

        One process of the fleet at a time holds other jobs back, for a lease's time (it may have died), and longer
        only while it empties. Then it does other work for as long. Where no other job is due, any process will do.
        """
        now, turn_seconds = time.monotonic(), settings().job_lease_seconds
        is_empty, is_ours = not self._in_flight(), now < self._turn_ends
        if is_ours and (is_empty or now > self._empty_by or self._turn_ends - now > turn_seconds / 2):
            return True
        if not is_ours and is_empty and not others_are_due:
            return True
        if not is_ours and now < self._turn_ends + turn_seconds:
            return False
        with transaction() as session:
            if not leases.take_turn(session, "quarantine", every_seconds=0 if is_ours else turn_seconds):
                return False
        if not is_ours:  # longer than any call lasts: then one hangs, and this process will not be empty
            self._empty_by = now + settings().provider_timeout_seconds + HUNG_AFTER_SECONDS
        self._turn_ends = now + turn_seconds
        return True

    def _pull_quarantined(self) -> None:
        for name in self._queues:
            for lease in self._claim(name, limit=1, quarantined=True):
                log.warning("quarantined_job_claimed", job_id=lease.job_id, losses=lease.losses)
                return

    def _free_slots(self, ending: Sequence[Lease] = ()) -> dict[Queue, int]:
        """By queue, once those of `ending` are free. Batch work leaves one in eight, at least one, to the interactive
        lane."""
        with self._lock:
            staying = self._running.keys() - map(_key, ending)
            in_flight = len(staying)
            batch = sum(self._running[key].lease.queue != Queue.INTERACTIVE for key in staying)
        free = self._concurrency - in_flight
        batch_free = min(free, self._concurrency - self._kept_for_interactive - batch)
        return {name: free if name == Queue.INTERACTIVE else max(0, batch_free) for name in self._queues}

    def _in_flight(self) -> int:
        with self._lock:
            return len(self._running)

    def _start(
        self,
        claimed: Sequence[Lease],
        claimed_at: float,
        *,
        alone: bool = False,
        loaded: Mapping[int, Any] | None = None,
        after: Sequence[Lease] = (),
    ) -> None:
        """Give these a slot each; those of `after` are free in the same moment, so that nobody else fills them.
        What they need is read by a slot, unless they are calls and it was when they were claimed."""
        with self._lock:
            ended = [running for lease in after if (running := self._running.pop(_key(lease), None)) is not None]
            for lease in claimed:
                self._running[_key(lease)] = _Running(lease, claimed_at, alone)
        by_kind = defaultdict(list)
        for lease in claimed:
            if loaded is None or lease.kind != JobKind.EXECUTION:
                by_kind[lease.kind].append(lease)
            else:
                self._work.put(partial(self._run, lease, loaded))
        for kind, group in by_kind.items():
            self._work.put(partial(self._load, kind, group))
        now = time.monotonic()
        for running in ended:
            if running.started_at is not None:
                metrics.try_ended(str(running.lease.kind), now - running.started_at)

    # ---- running ----------------------------------------------------------------------------

    def _work_for_ever(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _load(self, kind: JobKind, group: Sequence[Lease]) -> None:
        """Read what a group of jobs needs in one transaction, then run each in a slot of its own."""
        try:
            with reading() as session:
                loaded = self._steps[kind].load(session, group)
        except BaseException as error:
            if _is_outage(error):
                # Nobody's fault, and no attempt: the leases are kept, and what is lost meanwhile does not start.
                log.warning("not_loaded_yet", jobs=len(group), error=_first_line(error))
                if not self._stopped.wait(0.5):
                    self._work.put(partial(self._load, kind, group))
            elif len(group) == 1:
                self._outcomes.put(_Ended(group[0], _crash(error, group[0])))
            else:  # each for itself, so that one bad row fails alone
                for lease in group:
                    self._work.put(partial(self._load, kind, [lease]))
            return
        for lease in group[1:]:
            self._work.put(partial(self._run, lease, loaded))
        self._run(group[0], loaded)

    def _run(self, lease: Lease, loaded: Mapping[int, Any]) -> None:
        if lease.job_id not in loaded:
            self._outcomes.put(_Ended(lease, Canceled(started=False)))
        elif self._may_start(lease):
            try:
                outcome = self._steps[lease.kind].run(lease, loaded[lease.job_id])
            except BaseException as error:  # whatever it is, a slot that ended silently would keep its lease for ever
                outcome = _crash(error, lease)
            self._outcomes.put(_Ended(lease, outcome))
        elif not self._stopped.is_set():  # else stop() gives it back
            self._forget([lease])

    def _may_start(self, lease: Lease) -> bool:
        """Nothing new is begun for a lost lease, nor once it may have expired without our hearing of it,
        nor while the process is being stopped."""
        with self._lock:
            running = self._running.get(_key(lease))
            if running is None or running.lost or self._stopped.is_set():
                return False
            now = time.monotonic()
            if now - running.renewed_at >= settings().job_lease_seconds:
                return False
            running.started_at = now
            return True

    # ---- recording --------------------------------------------------------------------------

    def _record_for_ever(self) -> None:
        while True:
            first = self._outcomes.get()
            if first is None:
                return
            self._record(self._group_of(first))

    def _group_of(self, first: _Ended) -> list[_Ended]:
        """With the outcomes that end close to the first, until they are half of what is in flight: committed together
        they cost a fraction, and the other half is under way meanwhile. Where nothing waits for a slot, until they are
        all. Where somebody waits for one of them, or the first has waited for the commit before it, only those that
        have ended already come along.
        """
        group = [first]
        until = first.at + LINGER_SECONDS
        while len(group) < RECORD_AT_MOST:
            awaited = group[-1].lease.queue == Queue.INTERACTIVE
            enough = self._in_flight() / 2 if self._backlog else self._in_flight()
            if awaited or not (len(group) < enough or self._claiming.locked()):
                until = 0.0  # what has ended already comes along, and no more
            try:
                ended = self._outcomes.get(timeout=max(0.0, min(GAP_SECONDS, until - time.monotonic())))
            except queue.Empty:
                break
            if ended is None:
                self._outcomes.put(None)
                break
            group.append(ended)
        return group

    def _record(self, group: Sequence[_Ended], *, claiming: bool = True) -> None:
        """Commit the group; one by one when it fails together, so that a bad answer fails alone.

        While the database is away, or refuses for a reason that is not the answer's, the outcomes are kept:
        they are paid. Once it is back they are written, unless somebody has claimed the job meanwhile.
        """
        while True:
            try:
                self._commit(group, claiming=claiming)
                return
            except Exception as error:
                if _is_outage(error):
                    log.warning("outcome_not_recorded_yet", jobs=len(group), error=_first_line(error))
                    if self._stopped.wait(0.5):
                        self._forget(_slots_of(group))
                        return
                    continue
                if len(group) > 1:
                    for ended in group:
                        self._record([ended], claiming=False)
                    return
                (ended,) = group
                log.exception("outcome_not_recorded", job_id=ended.lease.job_id)
                if isinstance(ended.outcome, Failure) and ended.outcome.code == "unstorable_outcome":
                    self._forget(_slots_of(group))  # the sweep will see to it
                    return
                failure = Failure("unstorable_outcome", _first_line(error), False, possibly_paid=True)
                group, claiming = [replace(ended, outcome=failure)], False

    def _commit(self, group: Sequence[_Ended], *, claiming: bool) -> None:
        """Record the outcomes and claim what their slots do next, unless somebody waits for one of them or the
        puller is claiming. As soon as that is durable the slots are free, all at once."""
        ending = _slots_of(group)
        claimed: list[Lease] = []
        loaded: dict[int, Any] = {}
        began = time.monotonic()
        awaited = any(ended.lease.queue == Queue.INTERACTIVE for ended in group)
        claiming = claiming and not awaited and self._may_claim_beside() and self._claiming.acquire(blocking=False)

        def claim(session: Session) -> None:
            claimed.extend(self._claim_beside(session, ending) if claiming else ())
            calls = [lease for lease in claimed if lease.kind == JobKind.EXECUTION]
            if calls:  # and no step: what one needs may be much
                loaded.update(self._steps[JobKind.EXECUTION].load(session, calls))

        def claim_steps(session: Session, steps: Mapping[Queue, Sequence[int]]) -> None:
            if claiming and steps:
                claimed.extend(self._claim_steps(session, ending, len(claimed), steps))

        def committed() -> None:
            self._start(claimed, began, loaded=loaded, after=ending)
            if any(self._free_slots().values()):
                self._wakeup.set()

        try:
            outcomes = [(ended.lease, ended.outcome) for ended in group]
            record(self._steps, outcomes, beside=claim, set_off=claim_steps, committed=committed)
        finally:
            if claiming:
                self._claiming.release()

    def _forget(self, ending: Sequence[Lease]) -> None:
        """Free the slots of these, all at once: so that the next claim fills them all."""
        self._start((), 0.0, after=ending)
        self._wakeup.set()

    def _give_back(self, left: Sequence[_Running]) -> None:
        try:
            with transaction() as session:
                leases.release(
                    session,
                    [running.lease for running in left],
                    started={running.lease.job_id for running in left if running.started_at is not None},
                )
                leases.check_out(session, self.owner)
        except _DATABASE_ERRORS as error:
            log.warning("leases_not_given_back", jobs=len(left), error=_first_line(error))

    # ---- heartbeat --------------------------------------------------------------------------

    def _beat_for_ever(self) -> None:
        beat_seconds = settings().heartbeat_seconds or settings().job_lease_seconds / 3
        pause = beat_seconds
        while True:
            try:
                self._beat()
                pause = beat_seconds
            except _DATABASE_ERRORS as error:
                log.warning("heartbeat_failed", error=_first_line(error))
                pause = min(1.0, beat_seconds)  # a whole period later the leases might have run out
            except Exception:
                log.exception("heartbeat_failed")
                pause = min(1.0, beat_seconds)
            if self._stopped.wait(pause):
                return

    def _beat(self) -> None:
        with self._lock:
            held = [running.lease for running in self._running.values() if not running.lost]
        began = time.monotonic()
        with transaction() as session:
            if not self._draining.is_set() and began - self._pulled_at < STUCK_SECONDS:
                leases.check_in(session, self.owner, self._queues, self._concurrency)
            beat = leases.renew(session, self.owner, held, lease_seconds=settings().job_lease_seconds)
        for lease in held:
            with self._lock:
                running = self._running.get(_key(lease))
                if running is None:
                    continue
                canceled = lease.job_id in beat.cancel_requested
                if _key(lease) in beat.held:
                    running.renewed_at = began
                    running.lost = canceled  # so that a step which has not begun never does
                else:
                    running.lost = True
                    log.warning("lease_lost", job_id=lease.job_id, kind=str(lease.kind))
            if canceled:
                self._outcomes.put(_Ended(lease, Canceled(started=running.started_at is not None), frees_slot=False))
        self._give_up_hung_calls(began)

    def _give_up_hung_calls(self, now: float) -> None:
        """A call that trickles on for ever would renew its lease for ever. It is tried again; its slot stays taken."""
        limit = settings().provider_timeout_seconds + HUNG_AFTER_SECONDS
        with self._lock:
            hung = [
                running
                for running in self._running.values()
                if running.lease.kind == JobKind.EXECUTION
                and not running.lost
                and running.started_at is not None
                and now - running.started_at > limit
            ]
            for running in hung:
                running.lost = True
        for running in hung:
            log.warning("call_hangs", job_id=running.lease.job_id, seconds=round(limit))
            failure = Failure("timeout", f"no answer within {limit:g} s", retryable=True, possibly_paid=True)
            self._outcomes.put(_Ended(running.lease, failure, frees_slot=False))

    def _sweep_for_ever(self) -> None:
        """Sweep when beat has not: a dead beat or a dead Redis stops nothing."""
        while not self._stopped.wait(settings().sweep_seconds):
            try:
                self._sweep()
            except _DATABASE_ERRORS as error:
                log.warning("sweep_failed", error=_first_line(error))
            except Exception:
                log.exception("sweep_failed")


def _crash(error: BaseException, lease: Lease) -> Failure:
    """A bug in a step: tried again, then failed in the open."""
    log.error("step_crashed", job_id=lease.job_id, kind=str(lease.kind), exc_info=error)
    return Failure("internal_error", _first_line(error), retryable=True)


def _is_outage(error: BaseException) -> bool:
    """Whether the database refused for a reason that is neither the row's nor the outcome's."""
    return isinstance(error, _DATABASE_ERRORS) and not isinstance(error, DataError | IntegrityError)


def _slots_of(group: Sequence[_Ended]) -> list[Lease]:
    return [ended.lease for ended in group if ended.frees_slot]


def _key(lease: Lease) -> _Key:
    return lease.job_id, lease.fence


def _first_line(error: BaseException) -> str:
    return storable(f"{type(error).__name__}: {error}".splitlines()[0], 300)
