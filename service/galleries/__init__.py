"""The use cases. Each takes one command of `commands` and returns one result of `results`, both plain data.

catalog                               galleries in memory, which follow every commit
enrolment, enrolment_results          embed and store crops
query                                 find entries or persons
entries, persons, management          read and change entries, persons, galleries
transfer                              export and import
inference                             embed, compare, explain
audit, status                         the audit log; the loaded model and readiness
loader, outcomes                      helpers of the modules above

May import: index, inference, batching, storage, observability, core.
"""

__all__ = [
    "audit",
    "catalog",
    "commands",
    "enrolment",
    "enrolment_results",
    "entries",
    "inference",
    "management",
    "persons",
    "query",
    "results",
    "status",
    "transfer",
]
