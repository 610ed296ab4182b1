"""Fine-tune the digits network for the third notebook, which loads what this script stores.

    python -m scripts.finetune_digits [FOLDER]

writes one integer network for each method (`NAME.npz`, see `golden.files`) and `finetuned.json`
(stages, losses, accuracies) into FOLDER, by default notebooks/finetuned. It needs the extra
`train`: PyTorch, and scikit-learn for the training images. A network that is there already is kept,
so that an interrupted run continues.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from golden.files import save_network
from napier.finetuning import Plan, finetune_document
from napier.loading import Samples
from napier.output import write_text
from napier.quantizing import load_source
from napier.training import Training
from scripts.train_digits import load_digits

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "finetuned"
TRAINING = Training(seed=1617, normalize=False)

PLANS = {
    "nhot2": Plan("nhot:n=2", epochs=4, uniform_epochs=2, learning_rate=1e-3),
    "nhot1": Plan("nhot:n=1", epochs=8, uniform_epochs=2, learning_rate=2e-3),
    "ternary": Plan("ternary", epochs=32, uniform_epochs=0, learning_rate=5e-3),
    "ttq": Plan("ttq", epochs=16, uniform_epochs=0, learning_rate=5e-3),
    "twn": Plan("twn", epochs=16, uniform_epochs=0, learning_rate=5e-3),
    "a2q_16": Plan("a2q+:16", epochs=8, uniform_epochs=0, learning_rate=2e-3),
    "a2q_14": Plan("a2q+:14", epochs=16, uniform_epochs=0, learning_rate=5e-3),
}


def main(folder: Path = FOLDER) -> None:
    """Train what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    digits, source = load_digits(), load_source(None)
    train, test = (
        Samples(((images / 16).astype(np.float32),), description)
        for images, description in (
            (digits.train_images, f"{len(digits.train_images)} training images"),
            (digits.test_images, f"{len(digits.test_images)} test images"),
        )
    )
    record = folder / "finetuned.json"
    documents = json.loads(record.read_text()) if record.exists() else {}
    for name, plan in PLANS.items():
        path = folder / f"{name}.npz"
        if path.exists() and name in documents:
            continue
        network, document = finetune_document(
            source, plan, TRAINING, train, digits.train_labels, test, digits.test_labels
        )
        kept = ("method", "stages", "training", "comparison")
        documents[name] = {key: document[key] for key in kept}
        path.unlink(missing_ok=True)
        save_network(replace(network, source="scripts/finetune_digits.py"), path)
        write_text(str(record), json.dumps(documents, indent=1) + "\n")
        accuracy = document["comparison"]["accuracy_tuned"]
        print(f"{name}: {plan.method}, accuracy {accuracy:.1%}", flush=True)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
