"""Networks are estimators of scikit-learn: fit, predict, and whatever takes an estimator (the extra ``sklearn``).

:class:`PCClassifier` and :class:`PCRegressor` train a network on arrays. They can be cloned, put into pipelines, and
searched over by ``GridSearchCV``. The room is loaded when one of them is first asked for.
"""

from pcgraph.estimators.base import PCEstimator
from pcgraph.estimators.classifier import PCClassifier
from pcgraph.estimators.regressor import PCRegressor

__all__ = ["PCClassifier", "PCEstimator", "PCRegressor"]
