"""Settings are searched for on Optuna: spaces, trials that are pruned, finalists over seeds, one storage for many.

:func:`pcgraph.search` takes a function that trains with given settings, and calls it with others; ``pcgraph search``
does so for the settings of ``pcgraph train``.
"""

from pcgraph.tuning.report import Progress
from pcgraph.tuning.results import Finalist, SearchResult, Trial
from pcgraph.tuning.search import search

__all__ = ["Finalist", "Progress", "SearchResult", "Trial", "search"]
