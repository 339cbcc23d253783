"""A classifier of scikit-learn learns by predictive coding."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from pcgraph.energies import CrossEntropy
from pcgraph.errors import ConfigError
from pcgraph.estimators.base import PCEstimator, validate_data

__all__ = ["PCClassifier"]


class PCClassifier(ClassifierMixin, PCEstimator):  # type: ignore[misc]
    """Classify rows of numbers by a predictive coding network.

    Parameters
    ----------
    graph : nx.DiGraph, optional
        Any graph in which a sweep from `input` reaches `target`; the rows are brought to the shapes of these nodes.
        None: a chain with `hidden` groups of `activation`, whose output has the energy ``"cross_entropy"``.
    hidden : tuple of int
    activation : str
    input, target : node
        What rows and one-hot classes are clamped to.
    init : Initializer, optional
        ``Forward()`` by default. A copy is trained, as of everything that is given.
    steps : int
        Inference steps a batch.
    state_lr : float
        Rate of the states by ``SGD``; not used where `state_optimizer` is given.
    state_optimizer : StateOptimizer or Solver, optional
    rule : Rule, optional
        A learning rule; one without inference, such as ``Backprop()``, leaves `init`, `steps` and the rates out.
    lr : float
        Of the weights, by Adam; not used where `optimizer` is given.
    optimizer : callable, optional
        Parameters -> optimizer, such as ``functools.partial(torch.optim.SGD, lr=0.1)``.
    epochs, batch_size : int
    clip : float, optional
        As for :func:`pcgraph.fit`.
    dtype : {"float32", "float64"}
    device : str
    random_state : int, RandomState or None
        Of weights, draws and the order of rows.
    progress : bool

    Attributes
    ----------
    net_ : PCNetwork
    history_ : History
    classes_ : ndarray
        In the order of the columns of ``predict_proba``.
    n_features_in_ : int
    n_iter_ : int
        Epochs that were trained.

    Notes
    -----
    ``predict_proba`` is the softmax of the outputs where the target has the energy ``"cross_entropy"``. With any other
    they are cut off below 0 and scaled to the sum 1, as the least squares fit of one-hot rows estimates probabilities.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> model = PCClassifier(epochs=30, random_state=0).fit(x / 10, y)
    >>> model.score(x / 10, y) > 0.9, model.predict_proba(x[:5] / 10).shape
    (True, (5, 3))
    """

    output_energy = "cross_entropy"

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X, (samples, features), of the classes y, (samples,)."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ConfigError(f"a classifier needs samples of two classes or more (found 1 class: {classes[0]!r})",
                              key="y")  # fmt: skip
        self._train(X, np.eye(len(classes))[numbers])
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Estimate the probability of each class, (samples, classes)."""
        outputs = self._outputs(X)
        node = self.net_.structure.number[self.target]
        if isinstance(self.net_.node_energy(node), CrossEntropy):
            outputs = np.exp(outputs - outputs.max(1, keepdims=True))
        else:
            outputs = np.clip(outputs, 0, None)
            outputs[outputs.sum(1) == 0] = 1.0
        return outputs / outputs.sum(1, keepdims=True)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict classes, (samples,)."""
        largest = self._outputs(X).argmax(1)  # which asks first whether there is a network
        return self.classes_[largest]  # type: ignore[no-any-return]
