"""Finding entries and persons: the search use case, its filter and vectors, index threads and verdicts.

search                 from a query to vectors, to hits of the index, to entries of the database
filter, vectors        the filter of a search; unit vectors from the numbers of a caller
searcher               runs searches of the index on threads
match_policy           from a cosine to a probability and a verdict
"""

__all__ = ["match_policy", "search", "searcher"]
