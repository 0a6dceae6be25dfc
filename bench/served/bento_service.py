"""How fast is BentoML with the same model? `bentoml serve bench.served.bento_service:Spam`, its path in MODEL."""

import os
from typing import Any

import bentoml
import joblib


@bentoml.service(workers=1)
class Spam:
    """Asks a model of scikit-learn."""

    def __init__(self) -> None:
        self._model = joblib.load(os.environ["MODEL"])

    @bentoml.api
    def predict(self, text: str) -> dict[str, Any]:
        """Return the scores of a text."""
        row = self._model.predict_proba([text])[0]
        return dict(zip(self._model.classes_.tolist(), row.tolist(), strict=True))
