"""The record: one SQLite database is the truth, vectors included.

`database` owns threads and commits; a module per table holds its SQL; `migrations` the schema; `backup`, `check` and
`integrity` examine and copy a data folder, `data_dir` locks it.
"""
