"""Scores impressions in ONNX Runtime by a file of `sluice snapshot export --format onnx`.

    python score_onnx.py MODEL.onnx < impressions.jsonl

Prints pctr, pcvr and pctcvr, one line for each impression. Needs the packages numpy, onnxruntime,
safetensors and xxhash; what an id is and which key it has is in read_snapshot.py beside this file.
"""

import json
import sys

import numpy as np
import onnxruntime
from read_snapshot import Snapshot, at_path, hash64, is_number


class OnnxModel(Snapshot):
    """Of a snapshot it takes the reading of features alone."""

    def __init__(self, path):  # pylint: disable=super-init-not-called
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.manifest = json.loads(self.session.get_modelmeta().custom_metadata_map["schema"])
        self.model = self.manifest["model"]

    def inputs(self, impressions):
        """Of a dense number its value; of any other feature its rows' keys, each with a weight."""
        made = {}
        for feature in self.manifest["features"]:
            name = feature["name"]
            values = [at_path(impression, feature["path"]) for impression in impressions]
            if "table" not in feature:
                limit = np.finfo(np.float32).max
                numbers = [value if is_number(value) else 0 for value in values]
                made[name] = np.clip(np.array(numbers, np.float64), -limit, limit).astype(np.float32)
                continue
            ids = [self.weighted_ids(feature, value) for value in values]
            shape = (len(ids), max(1, max(map(len, ids))))
            keys, weights = np.zeros(shape, np.uint64), np.zeros(shape, np.float32)
            for row, pairs in enumerate(ids):
                for column, (text, weight) in enumerate(pairs):
                    keys[row, column] = hash64(text, seed=hash64(feature["table"]))
                    weights[row, column] = weight
            made[f"{name}.keys"], made[f"{name}.weights"] = keys.view(np.int64), weights
        return made

    def rates(self, impressions):
        return np.stack(self.session.run(["pctr", "pcvr", "pctcvr"], self.inputs(impressions)), 1)


if __name__ == "__main__":
    model = OnnxModel(sys.argv[1])
    for rates in model.rates([json.loads(line) for line in sys.stdin]):
        print(*rates)
