"""Many checkpoints to many bundles in one run, from a YAML plan.

`plan` reads the file into jobs, `runner` runs each job in a process of its own, `job` makes one bundle, `state` records
what is finished so that a second run resumes, `summary` prints and writes the results.
"""

from export.batch.plan import Job, read_plan
from export.batch.runner import run_batch

__all__ = ["Job", "read_plan", "run_batch"]
