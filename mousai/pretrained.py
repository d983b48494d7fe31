"""The DMAEs that come with mousai: fp16 weights in `mousai/weights/NAME`, each with its model card.

A folder there is a frozen checkpoint, `ema.safetensors` and `checkpoint.json`: whatever reads checkpoints reads it.
"""

import json
from pathlib import Path

from mousai.config import DMAEConfig, to_dict
from mousai.storage import read_json

WEIGHTS = Path(__file__).parent / "weights"


def pretrained_dmae(config: DMAEConfig) -> Path | None:
    """The folder of the DMAE with this very configuration; None where none comes with mousai."""
    wanted = json.loads(json.dumps(to_dict(config)))
    folders = sorted(path.parent for path in WEIGHTS.glob("*/checkpoint.json"))
    return next((folder for folder in folders if read_json(folder / "checkpoint.json")["config"] == wanted), None)
