"""One SQLite database holds every gallery, vectors included.

`database` owns the threads and the transactions, `migrations` the schema. One module per table holds its SQL.
`integrity`, `backup`, `check` and `vacuum` examine, copy, repair and shrink the database; `data_dir` locks its folder.

May import: observability, core.
"""

__all__ = [
    "backup",
    "check",
    "crops",
    "data_dir",
    "database",
    "entries",
    "galleries",
    "gallery_integrity",
    "idempotency",
    "integrity",
    "reembedding",
    "vacuum",
]
