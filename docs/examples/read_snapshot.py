"""Scores impressions by a snapshot without Sluice, and prints what `sluice score` prints.

    python read_snapshot.py SNAPSHOT < impressions.jsonl

SNAPSHOT is a folder models/<name>/snapshots/<sequence>; impressions are valid lines of the stream.
Needs the packages numpy, safetensors and xxhash. The formats are explained in docs/formats.md. Of the
recipes those whose rates follow from two towers over shared embeddings, as ESMM's do.
"""

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy
import xxhash

U64 = (1 << 64) - 1
RECIPES = ("esmm", "escm2_ips", "escm2_snips", "escm2_dr", "dcmt")


def mix64(x):
    x = (x + 0x9E3779B97F4A7C15) & U64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & U64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & U64
    return x ^ (x >> 31)


def hash64(text, seed=0):
    return xxhash.xxh3_64_intdigest(text.encode(), seed=seed)


def rounded(x):
    """To bf16, the upper half of an f32: to nearest, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def load(folder):
    """A snapshot's manifest, and its tensors with all rows: a delta's are put into its base's."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, listed in manifest["files"].items():
        digest = xxhash.xxh3_128_hexdigest((folder / name).read_bytes())
        if digest != listed["xxh3_128"]:
            raise ValueError(f"{folder / name} is damaged")
    tensors = safetensors.numpy.load_file(folder / "weights.safetensors")
    if manifest["kind"] == "full":
        return manifest, tensors
    base = folder.absolute().parent / f"{manifest['base']['sequence']:012}"
    base_manifest, all_rows = load(base)
    if base_manifest["checksum"] != manifest["base"]["checksum"]:
        raise ValueError(f"{base} is not the base of {folder}")
    for name in [name for name in tensors if name.endswith(".keys")]:
        rows = name.removesuffix("keys") + "rows"
        keys = np.concatenate([tensors[name], all_rows[name]])
        # Of a key that comes twice the first counts: the delta's.
        keys, places = np.unique(keys, return_index=True)
        tensors[rows] = np.concatenate([tensors[rows], all_rows[rows]])[places]
        tensors[name] = keys
    return manifest, tensors


class Snapshot:
    def __init__(self, folder):
        self.manifest, self.tensors = load(folder)
        self.model = self.manifest["model"]

    def row(self, table, text):
        """The embedding of one id: a trained row, or the value that every row begins with."""
        return self.row_of_key(table, hash64(text, seed=hash64(table)))

    def row_of_key(self, table, key):
        keys = self.tensors[f"embedding.{table}.keys"]  # ascending
        index = int(np.searchsorted(keys, np.uint64(key)))
        if index < len(keys) and int(keys[index]) == key:
            return self.tensors[f"embedding.{table}.rows"][index]
        stream = hash64(f"embedding.{table}", seed=self.model["seed"])
        start = mix64((stream + key) & U64)
        bits = [mix64((start + j) & U64) for j in range(self.model["embedding_dim"])]
        odd = np.array([2 * (b >> 40) + 1 - 2**24 for b in bits], dtype=np.float64)
        return (odd / 2**24 * (0.05 * np.sqrt(3.0))).astype(np.float32)

    def bucket(self, value, buckets):
        if isinstance(buckets, str):  # "log:8": by magnitude, the sign kept
            edges = self.manifest["bucket_edges"][buckets]
            count = int(np.searchsorted(edges, abs(value), side="right"))
            return -count if value < 0 else count
        return int(np.searchsorted(buckets, value, side="right"))

    def inputs(self, impression):
        """Each feature's pooled embedding or dense number: those with a group first, by name."""
        parts = []
        for feature in sorted(self.manifest["features"], key=lambda feature: "group" not in feature):
            value = at_path(impression, feature["path"])
            if "table" not in feature:
                parts.append([np.float32(value if is_number(value) else 0)])
                continue
            pooled = np.zeros(self.model["embedding_dim"], dtype=np.float32)
            for text, weight in self.weighted_ids(feature, value):
                pooled += np.float32(weight) * self.row(feature["table"], text)
            parts.append(pooled)
        return np.concatenate(parts).astype(np.float32)

    def weighted_ids(self, feature, value):
        """The ids that a value stands for, with weights; none for a value of a wrong type."""
        kind = feature["type"]
        if kind == "number":
            return [(str(self.bucket(value, feature["buckets"])), 1)] if is_number(value) else []
        if kind == "id":
            pairs = [(value, 1)]
        elif kind == "ids":
            pairs = [(item, 1) for item in value] if isinstance(value, list) else []
        elif isinstance(value, dict):
            pairs = list(value.items())
        else:  # [["red", 0.5], ...]
            is_list = isinstance(value, list) and all(
                isinstance(pair, list) and len(pair) == 2 for pair in value
            )
            pairs = value if is_list else []
        if not all(is_id(item) and is_number(weight) for item, weight in pairs):
            return []
        return [(str(item), weight) for item, weight in pairs]  # 5 and "5" are one id

    def logit(self, tower, x):
        layers = len(self.model["hidden"]) + 1
        for i in range(layers):
            weight = self.tensors[f"tower.{tower}.{i}.weight"]  # [out, in]
            if self.model["precision"] == "bf16" and i + 1 < layers:
                weight, x = rounded(weight), rounded(x)
            x = weight @ x + self.tensors[f"tower.{tower}.{i}.bias"]
            if i + 1 < layers:
                x = np.maximum(x, 0)
        return float(x[0])

    def score(self, impression):
        x = self.inputs(impression)
        pctr, pcvr = (1 / (1 + np.exp(-self.logit(tower, x))) for tower in ("ctr", "cvr"))
        name = self.manifest["streams"]["impression_id"]
        return {
            "impression_id": str(at_path(impression, name)),
            "pctr": float(pctr),
            "pcvr": float(pcvr),
            "pctcvr": float(pctr * pcvr),
        }


def at_path(record, path):
    for key in path.split("."):
        record = record.get(key) if isinstance(record, dict) else None
    return record


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_id(value):
    return isinstance(value, (int, str)) and not isinstance(value, bool)


if __name__ == "__main__":
    snapshot = Snapshot(Path(sys.argv[1]))
    recipe = snapshot.model["recipe"]
    if recipe.split(":")[0] not in RECIPES:
        sys.exit(f"the rates of recipe {recipe} are not worked out here, only of {', '.join(RECIPES)}; "
                 "`sluice snapshot export --format onnx` makes a model of any recipe")
    for line in sys.stdin:
        print(json.dumps(snapshot.score(json.loads(line))))
