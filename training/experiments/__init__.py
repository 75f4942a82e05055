"""Comparisons of the variants of the network: the tables of the paper, and what each variant costs.

`ablation` trains a table of variants; `cost` counts parameters, operations and memory.
"""

__all__: list[str] = []
