"""How fast is MLServer with the same model? A runtime of its own, since texts are not what its sklearn one takes."""

import joblib
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Spam(MLModel):
    """Asks a model of scikit-learn."""

    async def load(self) -> bool:
        """Load it from where the settings say."""
        self._model = joblib.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the labels of texts."""
        texts = StringCodec.decode_input(payload.inputs[0])
        rows = self._model.predict_proba(texts)
        labels = self._model.classes_[rows.argmax(axis=1)].tolist()
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("label", labels)])
