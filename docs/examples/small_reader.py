"""Scores logged impressions by a snapshot: python small_reader.py SNAPSHOT < impressions.jsonl

Of full f32 snapshots of the recipe esmm without groups of features, for ids that were trained;
read_snapshot.py reads deltas, bf16, groups and new ids, too.
"""
import functools, json, pathlib, sys  # pylint: disable=multiple-imports
import numpy as np
from safetensors.numpy import load_file
from xxhash import xxh3_64_intdigest as hash64

folder = pathlib.Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
tensors = load_file(folder / "weights.safetensors")

def row(table, text):
    key = np.uint64(hash64(str(text), seed=hash64(table)))
    return tensors[f"embedding.{table}.rows"][tensors[f"embedding.{table}.keys"] == key][0]

def bucket(value, buckets):  # "log:8" is by magnitude, the sign kept
    edges = manifest["bucket_edges"].get(str(buckets), buckets)
    sign = np.sign(value) if isinstance(buckets, str) else 1
    return int(sign * np.searchsorted(edges, sign * value, side="right"))

def columns(feature, value):
    if "table" not in feature:
        return np.float32([value or 0])
    if feature["type"] == "number" and value is not None:
        value = bucket(value, feature["buckets"])
    ids = value if isinstance(value, (dict, list)) else [] if value is None else [value]
    pairs = ids.items() if isinstance(ids, dict) else [(one, 1) for one in ids]
    rows = [np.float32(weight) * row(feature["table"], one) for one, weight in pairs]
    return sum(rows, start=np.zeros(manifest["model"]["embedding_dim"], np.float32))

def rate(tower, x):
    for layer in range(len(manifest["model"]["hidden"]) + 1):
        x = np.maximum(x, 0) if layer > 0 else x
        x = tensors[f"tower.{tower}.{layer}.weight"] @ x + tensors[f"tower.{tower}.{layer}.bias"]
    return float(1 / (1 + np.exp(-x[0])))

for impression in map(json.loads, sys.stdin):
    inputs = [columns(feature, functools.reduce(
        lambda part, key: (part or {}).get(key), feature["path"].split("."), impression))
        for feature in manifest["features"]]
    pctr, pcvr = (rate(tower, np.concatenate(inputs)) for tower in ("ctr", "cvr"))
    print(json.dumps({"pctr": pctr, "pcvr": pcvr, "pctcvr": pctr * pcvr}))
