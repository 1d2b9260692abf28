"""
Certify a model that ONNX Runtime runs
======================================

Any function from a batch of inputs to labels or scores can be certified. Here the function passes the batch to ONNX
Runtime. A network is trained under noise with scikit-learn, exported with skl2onnx, and certified from the exported
file alone.

The script needs the extra onnx: onnxruntime and skl2onnx.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from smoothcert import SmoothedClassifier, SplitNoise, certified_accuracy_score


class OnnxModel:
    """A function from a batch to scores, backed by an ONNX file.

    What is certified must answer the same row in the same way, whatever else is in the batch: one thread, and no
    optimization that depends on the batch. Sessions cannot be pickled; the file's content can, which makes the model
    usable by several workers.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.session = self._open()

    def _open(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: NDArray[np.float64]) -> NDArray[np.float32]:
        inputs = {self.session.get_inputs()[0].name: batch.astype(np.float32)}
        scores: NDArray[np.float32] = self.session.run([self.session.get_outputs()[-1].name], inputs)[0]
        return scores

    def __getstate__(self) -> dict[str, bytes]:
        return {"content": self.content}

    def __setstate__(self, state: dict[str, bytes]) -> None:
        self.__init__(state["content"])


def export(estimator: Any, n_features: int) -> bytes:
    """Turn a fitted scikit-learn classifier into the content of an ONNX file whose last output are the scores."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    inputs = [("X", FloatTensorType([None, n_features]))]
    return to_onnx(estimator, initial_types=inputs, options={"zipmap": False}).SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--samples", type=int, default=2000, help="votes per image")
    parser.add_argument("--images", type=int, default=100, help="images to certify")
    arguments = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = X / 16
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=arguments.images, stratify=y, random_state=0)

    noise = SplitNoise(lam=1.0)
    network = MLPClassifier((128,), max_iter=arguments.epochs, early_stopping=True, random_state=0)
    trained = SmoothedClassifier(network, noise, n_samples=arguments.samples, random_state=0).fit(X_train, y_train)

    content = export(trained.estimator_, X.shape[1])
    print(f"exported: {len(content):,} bytes of ONNX")
    clf = SmoothedClassifier.from_pretrained(
        OnnxModel(content), trained.classes_, noise, n_samples=arguments.samples, random_state=0
    )
    certificates = clf.certify(X_test)
    for radius in (0.0, 0.25, 0.5):
        print(f"certified accuracy at l1 radius {radius}: {certified_accuracy_score(y_test, certificates, radius):.3f}")
    same = np.mean(certificates.labels == trained.predict(X_test))
    print(f"same labels as scikit-learn's own run of the network: {same:.3f}")


if __name__ == "__main__":
    main()
