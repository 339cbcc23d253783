"""A training run on images is declared by plain settings, as ``pcgraph train`` and searches over them have it.

:class:`Options` are the settings, from defaults, a TOML file and what is given; :func:`prepare` makes network, rule and
initializers of them, and refuses what cannot work before any data is looked for.
"""

from pcgraph.experiments.experiment import Experiment, Splits, load_splits, prepare, rehearse
from pcgraph.experiments.options import Options, options_from

__all__ = ["Experiment", "Options", "Splits", "load_splits", "options_from", "prepare", "rehearse"]
