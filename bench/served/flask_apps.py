"""How fast is Flask: one that answers a constant, and one that asks scikit-learn, as tutorials do?

`gunicorn 'bench.served.flask_apps:constant()'` and `... :sklearn("model.joblib")'`, which make_model.py wrote.
"""

from typing import Any

import joblib
from flask import Flask, jsonify, request


def constant() -> Flask:
    """Return an app that answers with a constant."""
    app = Flask(__name__)

    @app.post("/predict")
    def predict() -> Any:
        return jsonify(label="spam", score=0.9, scores={"spam": 0.9, "ham": 0.1})

    return app


def sklearn(path: str) -> Flask:
    """Return an app that asks a model."""
    app, model = Flask(__name__), joblib.load(path)

    @app.post("/predict")
    def predict() -> Any:
        row = model.predict_proba([request.get_json()["text"]])[0]
        scores = dict(zip(model.classes_.tolist(), row.tolist(), strict=True))
        label = max(scores, key=scores.__getitem__)
        return jsonify(label=label, score=scores[label], scores=scores)

    return app
