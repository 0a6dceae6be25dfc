"""What do the peers serve? `python -m bench.served.make_model TEXTS MODEL [MLFLOW]`.

TEXTS has a label, a tab and a text in each line. The model: TF-IDF of words and pairs, logistic regression.
"""

import sys
from pathlib import Path

import joblib
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def main(texts: str, path: str, mlflow_path: str | None = None) -> None:
    """Fit the model and write it, for MLflow too where that was asked for."""
    rows = [line.split("\t", 1) for line in Path(texts).read_text("utf-8").splitlines()]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    model.fit([text for _, text in rows], [label for label, _ in rows])
    if mlflow_path is None:
        joblib.dump(model, path)
        return
    import mlflow.sklearn  # noqa: PLC0415  (only for itself)

    mlflow.sklearn.save_model(model, mlflow_path, serialization_format="cloudpickle")


if __name__ == "__main__":
    main(*sys.argv[1:])
