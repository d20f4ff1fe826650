"""Tables, relations and constraints. No queries: those are the verbs in `shared.domain`."""

from shared.models.base import LIVE_STATES, OPEN_STATES, PAUSED, Base, State, new_id, table_of
from shared.models.batches import Batch
from shared.models.budgets import Budget
from shared.models.bulk import BulkItem, BulkOperation
from shared.models.datasets import Dataset, DatasetRevision, TestCase
from shared.models.evaluations import Evaluation, WorkItem
from shared.models.events import Event
from shared.models.executions import Call, Execution
from shared.models.feedback import Feedback
from shared.models.generations import Generation
from shared.models.idempotency import IdempotencyRecord
from shared.models.jobs import Barrier, Job, JobKind, JobLease, Queue, QueueControl, Schedule, WorkerProcess
from shared.models.labels import LabelMove, LabelProtection, LabelRequest, RequestState
from shared.models.lifecycle import LifecycleChange
from shared.models.optimizations import Candidate, Optimization, OptimizationComparison
from shared.models.projects import Project, ProjectStatus
from shared.models.prompts import Label, Prompt, Version
from shared.models.providers import Model, Price
from shared.models.relationships import Relationship
from shared.models.search import SearchDocument
from shared.models.tenants import ApiKey, Role, User, Workspace

__all__ = [
    "LIVE_STATES",
    "OPEN_STATES",
    "PAUSED",
    "ApiKey",
    "Barrier",
    "Base",
    "Batch",
    "Budget",
    "BulkItem",
    "BulkOperation",
    "Call",
    "Candidate",
    "Dataset",
    "DatasetRevision",
    "Evaluation",
    "Event",
    "Execution",
    "Feedback",
    "Generation",
    "IdempotencyRecord",
    "Job",
    "JobKind",
    "JobLease",
    "Label",
    "LabelMove",
    "LabelProtection",
    "LabelRequest",
    "LifecycleChange",
    "Model",
    "Optimization",
    "OptimizationComparison",
    "Price",
    "Project",
    "ProjectStatus",
    "Prompt",
    "Queue",
    "QueueControl",
    "Relationship",
    "RequestState",
    "Role",
    "Schedule",
    "SearchDocument",
    "State",
    "TestCase",
    "User",
    "Version",
    "WorkItem",
    "WorkerProcess",
    "Workspace",
    "new_id",
    "table_of",
]
