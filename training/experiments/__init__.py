"""Comparisons of the variants of the network: the tables of the paper, and the cost of each variant.

recipes     the committed run and table recipes      ablation   trains the runs of a table
runs        runs as processes, shared by devices     tables     figures of finished runs
paper       the figures that the paper prints        cost       parameters, operations and memory, counted
                                                     measured   time and memory, measured
"""

__all__: list[str] = []
