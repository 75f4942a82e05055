"""Many checkpoints to many bundles in one run, from a YAML plan.

plan -> one job per bundle -> runner -> worker process -> state.json -> summary

Imports `export.bundles`, `export.tensorrt` and what they import. Public: the names in `__all__`.
"""

from export.batch.plan import Job, read_plan
from export.batch.runner import plan_actions, run_batch
from export.batch.state import ResultRow

__all__ = ["Job", "ResultRow", "plan_actions", "read_plan", "run_batch"]
