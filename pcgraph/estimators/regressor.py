"""A regressor of scikit-learn learns by predictive coding."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from pcgraph.errors import ConfigError
from pcgraph.estimators.base import PCEstimator, validate_data

__all__ = ["PCRegressor"]


class PCRegressor(RegressorMixin, PCEstimator):  # type: ignore[misc]
    """Predict numbers from rows of numbers by a predictive coding network.

    The parameters are those of :class:`PCClassifier`; the output of the chain that is made without a graph has the
    squared error for its energy. Targets are brought to mean 0 and variance 1 before training, and back in ``predict``.

    Attributes
    ----------
    net_ : PCNetwork
    history_ : History
    n_features_in_ : int
    n_iter_ : int
        Epochs that were trained.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> x, y = make_regression(200, 5, random_state=0)
    >>> PCRegressor(epochs=30, random_state=0).fit(x, y).score(x, y) > 0.9
    True
    """

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that y may have several columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X, (samples, features), with the numbers y, (samples,) or (samples, outputs)."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        y = np.asarray(y, dtype=np.float64)
        rows = y.reshape(len(y), -1)
        mean, scale = rows.mean(0), rows.std(0)
        if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
            raise ConfigError("y is so large that its mean or its spread is no number: divide it by its size", key="y")
        scale[scale == 0] = 1.0
        self._train(X, (rows - mean) / scale)
        self._mean, self._scale, self._flat = mean, scale, y.ndim == 1
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict numbers, (samples,) or (samples, outputs) as they were trained on."""
        found = self._outputs(X) * self._scale + self._mean
        return found[:, 0] if self._flat else found  # type: ignore[no-any-return]
