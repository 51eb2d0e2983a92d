"""Golden numbers for three training steps of ESMM, made without any code of Sluice.

Forward pass and loss in JAX at float64, gradients by its autograd, the update rules from
optimizer_steps.py, the initial values spelled out here. Every rule is used once for the layers and once
for the rows, with norms that clip in some steps and not in others. Every term of the loss is in play: clicked and unclicked, purchased and not, second samples,
repeated ids, two features on one table, weighted ids, bucketed and dense numbers, absent values.

    pip install jax numpy xxhash
    python3 esmm_step.py > esmm_step.json
"""

import bisect
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import xxhash

import optimizer_steps

jax.config.update("jax_enable_x64", True)

MASK = (1 << 64) - 1
SEED = 11
DIM = 3
HIDDEN = [6, 5]
LANE = 3
BATCH = 7
# Of the layers and of the rows.
RUNS = [
    (
        {"optimizer": "adam", "learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        {"optimizer": "adam", "learning_rate": 0.03, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6},
    ),
    (
        {"optimizer": "adagrad", "learning_rate": 0.05, "initial_accumulator": 0.01, "clip_norm": 0.125},
        {"optimizer": "rowwise_adagrad", "learning_rate": 0.1, "epsilon": 1e-3, "clip_norm": 0.003},
    ),
    (
        {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.5, "warmup_steps": 2, "l2": 0.01},
        {"optimizer": "ftrl", "learning_rate": 0.2, "ftrl_beta": 0.5, "l1": 0.05, "l2": 0.1},
    ),
    (
        {"optimizer": "ftrl", "learning_rate": 0.1, "l1": 1.0, "l2": 0.01, "warmup_steps": 2},
        {"optimizer": "adagrad", "learning_rate": 0.1, "epsilon": 1e-4, "warmup_steps": 4, "l2": 0.05},
    ),
    (
        {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.0, "clip_norm": 0.125},
        {"optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.8, "l2": 0.02, "clip_norm": 0.004},
    ),
]

# In the order of their names.
FEATURES = [
    {"name": "age", "type": "number", "table": "age", "edges": [18, 30, 50]},
    {"name": "brand", "type": "id", "table": "brand"},
    {"name": "categories", "type": "ids", "table": "category"},
    {"name": "interests", "type": "weighted_ids", "table": "interest"},
    {"name": "main_category", "type": "id", "table": "category"},
    {"name": "price", "type": "number", "table": "price", "log_buckets": 4},
    {"name": "speed", "type": "number"},
]


def impression(age, brand, categories, interests, main_category, price, speed):
    return {
        "age": age,
        "brand": brand,
        "categories": categories,
        "interests": interests,
        "main_category": main_category,
        "price": price,
        "speed": speed,
    }


def sample(impression_id, features, y=None, z=None):
    """A label that is None is not final; a second sample passes z only and is clicked."""
    return {
        "impression_id": impression_id,
        "features": features,
        "y": True if y is None else bool(y),
        "y_final": y is not None,
        "z": bool(z),
        "z_final": z is not None,
    }


I = {
    "a": impression(17, "acme", ["shoes", "sport"], [["run", 0.5], ["ski", 1.5]], "shoes", 79.9, 0.7),
    "b": impression(18, 5, ["sport", "sport"], [["run", -1.25]], "sport", -3.5, -1.5),
    "c": impression(29.5, "5", [], [], None, 0, 0.25),
    "d": impression(64, None, ["hats"], [["ski", 0.25], ["ski", 0.5], [12, 2.0]], "shoes", 1e6, None),
    "e": impression(None, "acme", None, None, "hats", None, 2.0),
    "f": impression(50, -8, ["shoes", 12, "hats"], [[12, 1.0]], "sport", 15.0, -0.125),
    "g": impression(30, "zeta", ["sport"], [["run", 3.0]], "shoes", 79.9, 1.0),
    "h": impression(41, "zeta", ["bags"], [["golf", 1.0]], "bags", 230.0, 0.0),
}

SAMPLES = [
    # Batch 1
    sample("i1", I["a"], y=0, z=0),
    sample("i2", I["b"], y=1),
    sample("i3", I["c"], y=1, z=1),
    sample("i4", I["d"], y=1, z=0),
    sample("i5", I["e"], y=0, z=0),
    sample("i6", I["f"], y=1),
    sample("i7", I["a"], y=0, z=0),
    # Batch 2: purchases and closes of what was clicked before
    sample("i2", I["b"], z=1),
    sample("i8", I["g"], y=0, z=0),
    sample("i9", I["d"], y=1),
    sample("i9", I["d"], z=0),
    sample("i10", I["h"], y=0, z=0),
    sample("i11", I["c"], y=1, z=1),
    sample("i12", I["g"], y=0, z=0),
    # Batch 3
    sample("i6", I["f"], z=0),
    sample("i13", I["e"], y=1),
    sample("i14", I["b"], y=0, z=0),
    sample("i15", I["a"], y=1, z=1),
    sample("i13", I["e"], z=1),
    sample("i16", I["h"], y=1, z=0),
    sample("i17", I["f"], y=0, z=0),
]


def mix64(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def uniform(bits, bound):
    odd = 2 * (bits >> 40) + 1 - (1 << 24)
    return float(np.float32(odd * 2.0**-24 * bound))


def stream(name):
    return xxhash.xxh3_64_intdigest(name.encode(), seed=SEED)


def initial_layer(name, shape, fan_in):
    start = stream(name)
    flat = [uniform(mix64((start + k) & MASK), 1 / math.sqrt(fan_in)) for k in range(math.prod(shape))]
    return np.array(flat).reshape(shape)


def initial_row(table, key):
    start = mix64((stream("embedding." + table) + key) & MASK)
    return [uniform(mix64((start + j) & MASK), 0.05 * math.sqrt(3)) for j in range(DIM)]


def row_key(table, value):
    seed = xxhash.xxh3_64_intdigest(table.encode())
    return xxhash.xxh3_64_intdigest(str(value).encode(), seed=seed)


def ids_of(feature, value):
    """[(row key, weight)] of an embedded feature."""
    if value is None:
        return []
    if feature["type"] == "id":
        pairs = [(value, 1.0)]
    elif feature["type"] == "ids":
        pairs = [(one, 1.0) for one in value]
    elif feature["type"] == "weighted_ids":
        pairs = value
    elif "log_buckets" in feature:
        bucket = math.floor(feature["log_buckets"] * math.log1p(abs(value)))
        pairs = [(-bucket if value < 0 else bucket, 1.0)]
    else:
        pairs = [(bisect.bisect_right(feature["edges"], value), 1.0)]
    return [(row_key(feature["table"], one), weight) for one, weight in pairs]


def is_dense(feature):
    return "table" not in feature


INPUTS = sum(1 if is_dense(f) else DIM for f in FEATURES)
WIDTHS = [INPUTS] + HIDDEN + [1]


def initial_parameters():
    towers = {}
    for tower in ("ctr", "cvr"):
        for i in range(len(WIDTHS) - 1):
            name = f"tower.{tower}.{i}"
            fan_in, fan_out = WIDTHS[i], WIDTHS[i + 1]
            towers[name + ".weight"] = initial_layer(name + ".weight", (fan_out, fan_in), fan_in)
            towers[name + ".bias"] = initial_layer(name + ".bias", (fan_out,), fan_in)
    keys = {}
    for one in SAMPLES:
        for feature in FEATURES:
            if not is_dense(feature):
                named = keys.setdefault(feature["table"], set())
                named.update(key for key, _ in ids_of(feature, one["features"][feature["name"]]))
    keys = {table: sorted(named) for table, named in keys.items()}
    rows = {table: np.array([initial_row(table, k) for k in keys[table]]) for table in keys}
    return towers, keys, rows


def logits(towers, rows, keys, features):
    parts = []
    for feature in FEATURES:
        value = features[feature["name"]]
        if is_dense(feature):
            parts.append(jnp.array([0.0 if value is None else value]))
            continue
        pooled = jnp.zeros(DIM)
        for key, weight in ids_of(feature, value):
            pooled = pooled + weight * rows[feature["table"]][keys[feature["table"]].index(key)]
        parts.append(pooled)
    x = jnp.concatenate(parts)
    result = []
    for tower in ("ctr", "cvr"):
        h = x
        for i in range(len(WIDTHS) - 1):
            name = f"tower.{tower}.{i}"
            h = towers[name + ".weight"] @ h + towers[name + ".bias"]
            if i < len(WIDTHS) - 2:
                h = jnp.maximum(h, 0.0)
        result.append(h[0])
    return result


def batch_loss(towers, rows, keys, batch):
    total = 0.0
    for one in batch:
        a, b = logits(towers, rows, keys, one["features"])
        p = 1 / (1 + jnp.exp(-a))
        pq = p / (1 + jnp.exp(-b))
        if one["y_final"]:
            total = total - (jnp.log(p) if one["y"] else jnp.log(1 - p))
        if one["z_final"]:
            total = total - (jnp.log(pq) if one["z"] else jnp.log(1 - pq))
    return total / len(batch)


class Optimized:
    """Arrays of weights that one optimizer updates, each with its slots."""

    def __init__(self, config, arrays):
        self.config = optimizer_steps.settings(config)
        self.arrays = arrays
        self.slots = {name: optimizer_steps.start(self.config, w.ravel().tolist()) for name, w in arrays.items()}

    def update(self, step, gradients):
        """All arrays by one gradient, clipped as a whole."""
        flat = np.concatenate([gradients[name].ravel() for name in self.arrays]).tolist()
        clipped = optimizer_steps.clip(self.config, flat)
        rule = optimizer_steps.RULES[self.config["optimizer"]]
        begin = 0
        for name, array in self.arrays.items():
            w = array.ravel().tolist()
            rule(self.config, step, w, self.slots[name], clipped[begin : begin + len(w)])
            begin += len(w)
            array[...] = np.reshape(w, array.shape)
        return clipped != flat

    def numbers(self, name):
        names = optimizer_steps.slot_names(self.config)
        return {"w": self.arrays[name].tolist(), "slots": dict(zip(names, self.slots[name]))}


def train(dense_config, row_config):
    towers, keys, rows = initial_parameters()
    dense = Optimized(dense_config, towers)
    table_rows = {t: [Optimized(row_config, {"row": row}) for row in rows[t]] for t in keys}
    last_batch = {table: [0] * len(keys[table]) for table in keys}
    predictions = []
    kept = {}
    clipped = {"dense": [], "rows": []}
    for step in range(1, len(SAMPLES) // BATCH + 1):
        batch = SAMPLES[(step - 1) * BATCH : step * BATCH]
        for one in batch:
            if one["y_final"]:
                kept[one["impression_id"]] = [float(l) for l in logits(towers, rows, keys, one["features"])]
            predictions.append(kept[one["impression_id"]])
        tower_gradients, row_gradients = jax.grad(batch_loss, argnums=(0, 1))(towers, rows, keys, batch)
        clipped["dense"].append(dense.update(step, {n: np.array(g) for n, g in tower_gradients.items()}))
        for table in keys:
            named = {
                key
                for one in batch
                for feature in FEATURES
                if feature.get("table") == table
                for key, _ in ids_of(feature, one["features"][feature["name"]])
            }
            for n, key in enumerate(keys[table]):
                if key in named:
                    gradient = np.array(row_gradients[table][n])
                    clipped["rows"].append(table_rows[table][n].update(step, {"row": gradient}))
                    last_batch[table][n] = step
    for part, config in (("dense", dense_config), ("rows", row_config)):
        assert set(clipped[part]) == ({True, False} if "clip_norm" in config else {False}), clipped[part]
    tables = {}
    for table in keys:
        numbers = [row.numbers("row") for row in table_rows[table]]
        tables[table] = {
            "keys": keys[table],
            "w": [one["w"] for one in numbers],
            "slots": {name: [one["slots"][name] for one in numbers] for name in numbers[0]["slots"]},
            "last_batch": last_batch[table],
        }
    return {
        "dense": dense.config,
        "embeddings": optimizer_steps.settings(row_config),
        "logits": predictions,
        "towers": {name: dense.numbers(name) for name in towers},
        "tables": tables,
    }


def main():
    json.dump(
        {
            "seed": SEED,
            "dim": DIM,
            "hidden": HIDDEN,
            "lane": LANE,
            "batch_size": BATCH,
            "features": FEATURES,
            "samples": SAMPLES,
            "initial_towers": {name: w.tolist() for name, w in initial_parameters()[0].items()},
            "runs": [train(dense, rows) for dense, rows in RUNS],
        },
        sys.stdout,
        indent=None,
        separators=(",", ":"),
    )
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
