"""One SQLite database holds every gallery, vectors included.

`database` owns the threads and the transactions, `connection` opens files, `migrations` has the schema. One module per
table holds its SQL. `entry_integrity`, `gallery_integrity` and `integrity` find damage, `check` repairs it. `backup`
copies, restores and shrinks a database; `data_dir` locks its folder.

May import: observability, core.
"""

__all__ = [
    "audit",
    "backup",
    "check",
    "connection",
    "crops",
    "data_dir",
    "database",
    "entries",
    "entry_integrity",
    "galleries",
    "gallery_integrity",
    "idempotency",
    "integrity",
    "reembedding",
]
