"""Golden numbers for three training steps of every built-in recipe, made without any code of Sluice.

The features and initial values are those of esmm_step.py, and so are the samples, but for recipes with in-shop
actions. Here are the towers, the embedding sets and the loss terms, spelled out from the papers' formulas;
gradients are JAX's, at float64. Which rows a batch updates is said term by term. The rule is SGD, whose steps
are as long as the gradients: Adam's would hide a factor. Checked is that every term counts in some sample, has
a loss and moves each tower that it reaches and no other, and that what is drawn is drawn in some samples and
rejected in others.

    pip install jax numpy xxhash
    python3 recipe_step.py > recipe_step.json
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import xxhash

import esmm_step as base
from esmm_step import BATCH, DIM, FEATURES, HIDDEN, INPUTS, MASK, SAMPLES, SEED, WIDTHS

# Momentum of the layers: a tower that no term of a batch reaches steps too.
DENSE = {"optimizer": "sgd", "learning_rate": 0.2, "momentum": 0.5}
EMBEDDINGS = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0}
stop = jax.lax.stop_gradient
sigmoid = jax.nn.sigmoid
softplus = jax.nn.softplus
TABLES = sorted({f["table"] for f in FEATURES if "table" in f})
COLUMNS = [sum(DIM if "table" in f else 1 for f in FEATURES[:n]) for n in range(len(FEATURES))]
VECTORS = [column for column, feature in zip(COLUMNS, FEATURES) if "table" in feature]


def action_sample(impression_id, of, y=None, action=None, z=None):
    """A label that is None is not final; told() says what it is then."""
    return {"impression_id": impression_id, "features": base.I[of], "y": y, "action": action, "z": z}


# Of impressions with up to three samples: every order in which labels become final, and values of each.
ACTION_SAMPLES = [
    # Batch 1
    action_sample("k1", "a", y=0, action=0, z=0),
    action_sample("k2", "b", y=1),
    action_sample("k3", "c", y=1, action=1),
    action_sample("k4", "d", y=1, z=1),
    action_sample("k5", "e", y=1, action=1, z=1),
    action_sample("k6", "f", y=1),
    action_sample("k7", "g", y=1, action=0, z=0),
    # Batch 2: each label alone, and both together
    action_sample("k2", "b", action=1),
    action_sample("k3", "c", z=1),
    action_sample("k4", "d", action=0),
    action_sample("k6", "f", action=1, z=0),
    action_sample("k8", "h", y=0, action=0, z=0),
    action_sample("k9", "a", y=1),
    action_sample("k10", "e", y=1),
    # Batch 3
    action_sample("k2", "b", z=0),
    action_sample("k9", "a", z=1),
    action_sample("k9", "a", action=1),
    action_sample("k10", "e", action=0, z=1),
    action_sample("k11", "g", y=1, z=0),
    action_sample("k11", "g", action=1),
    action_sample("k12", "d", y=0, action=0, z=0),
]


def told(samples):
    """With what a sample says of labels that are final before it or will be after it."""
    result = []
    for n, one in enumerate(samples):
        earlier = [o for o in samples[:n] if o["impression_id"] == one["impression_id"]]
        later = [o for o in samples[n + 1 :] if o["impression_id"] == one["impression_id"]]
        full = dict(one)
        for label in ("y", "action", "z"):
            before = next((o[label] for o in earlier if o[label] is not None), None)
            full[label + "_final"] = one[label] is not None
            full[label + "_earlier"] = before is not None
            full[label + "_later"] = any(o[label] is not None for o in later)
            assert [full[label + when] for when in ("_final", "_earlier", "_later")].count(True) == 1
            # But z is told with the sample that makes it final alone.
            full[label] = bool(one[label] or (before and label != "z"))
        result.append(full)
    seen = {(o["y_final"], o["action_final"], o["z_final"]) for o in result}
    assert len(seen) == 7, "all but a sample without a final label"
    both = {(o["action"], o["z"]) for o in result if o["action_final"] and o["z_final"]}
    assert len(both) == 4, "each pair of values"
    return result


def bce(label, p):
    return -jnp.where(label, jnp.log(p), jnp.log(1 - p))


def inverse(p):
    return jnp.minimum(1 / p, 15.0)


def draw(term, sample):
    """In [0, 1), of the impression and the term's name."""
    start = xxhash.xxh3_64_intdigest(sample["impression_id"].encode(), seed=SEED)
    bits = base.mix64((start + xxhash.xxh3_64_intdigest(term.encode())) & MASK)
    return (bits >> 11) * 2.0**-53


class Term:
    """`applies` to a sample's labels; loss, weight and chance are of label arrays l and rates r."""

    def __init__(self, name, towers, applies, loss, weight=None, chance=None, by_weights=False):
        self.name = name
        self.towers = towers  # that its gradient reaches
        self.applies = applies
        self.loss = loss
        self.weight = weight or (lambda l, r: jnp.ones(BATCH))
        self.chance = chance
        self.by_weights = by_weights


def with_y(one):
    return one["y_final"]


def with_z(one):
    return one["z_final"]


def with_action(one):
    return one["action_final"]


def unclicked(one):
    return one["y_final"] and not one["y"]


def clicked_z(one):
    return one["y"] and one["z_final"]


def two(r):
    return {"pctr": sigmoid(r["ctr"]), "pcvr": sigmoid(r["cvr"]), "pctcvr": sigmoid(r["ctr"]) * sigmoid(r["cvr"])}


def division(r):
    p, pq = sigmoid(r["ctr"]), sigmoid(r["ctcvr"])
    return {"pctr": p, "pctcvr": pq, "pcvr": jnp.minimum(1.0, pq / p)}


def esm2(r):
    p, act = sigmoid(r["click"]), sigmoid(r["act"])
    q = act * sigmoid(r["buy_after_action"]) + (1 - act) * sigmoid(r["buy_without"])
    return {"pctr": p, "pcvr": q, "pctcvr": p * q, "pctcar": p * act}


def esmc(r):
    p, q = sigmoid(r["click"]), sigmoid(r["act"] + r["buy"])
    return {"pctr": p, "pcvr": q, "pctcvr": p * q, "pctcar": p * sigmoid(r["act"])}


def esms(r):
    p, q = sigmoid(r["click"]), sigmoid(r["twin"] + r["buy"])
    return {"pctr": p, "pcvr": q, "pctcvr": p * q, "pctcar": p * sigmoid(r["twin"] + r["act"])}


def esmg(r):
    p, pq = sigmoid(r["click"]), sigmoid(r["buy"])
    return {"pctr": p, "pctcvr": pq, "pcvr": jnp.minimum(1.0, pq / p), "pctcar": p * sigmoid(r["act"])}


def ctr(tower="ctr"):
    return Term("ctr", [tower], with_y, lambda l, r: bce(l["y"], r["pctr"]))


def ctcvr(*towers):
    return Term("ctcvr", towers or ["ctr", "cvr"], with_z, lambda l, r: bce(l["z"], r["pctcvr"]))


def ctcar(*towers, name="ctcar"):
    return Term(name, towers, with_action, lambda l, r: bce(l["action"], r["pctcar"]))


def cvr(name="cvr", **changes):
    return Term(name, ["cvr"], clicked_z, lambda l, r: bce(l["z"], r["pcvr"]), **changes)


def by_propensity(l, r):
    return inverse(r["pctr"])


SHARED = {"ctr": ("shared", "mlp"), "cvr": ("shared", "mlp")}
APART = {"ctr": ("ctr", "mlp"), "cvr": ("cvr", "mlp")}
CLICK = {"act": ("shared", "mlp"), "buy": ("shared", "mlp"), "click": ("shared", "mlp")}

RECIPES = {
    "esmm": (SHARED, two, [ctr(), ctcvr()]),
    "esmm_ns": (APART, two, [ctr(), ctcvr()]),
    "lr": ({t: (t, "linear") for t in ("ctr", "cvr")}, two, [ctr(), ctcvr()]),
    "fm": ({t: (t, "fm") for t in ("ctr", "cvr")}, two, [ctr(), ctcvr()]),
    "base": (APART, two, [ctr(), cvr()]),
    "aman:rate=0.5": (
        APART,
        two,
        [
            ctr(),
            cvr(),
            Term(
                "missing_as_negative",
                ["cvr"],
                unclicked,
                lambda l, r: bce(jnp.zeros(BATCH, bool), r["pcvr"]),
                chance=lambda r: 0.5,
            ),
        ],
    ),
    "oversampling": (APART, two, [ctr(), cvr(weight=lambda l, r: jnp.where(l["z"], 5.0, 1.0))]),
    "unbias": (APART, two, [ctr(), cvr(chance=lambda r: 1 - r["pctr"])]),
    "division": (
        {"ctcvr": ("ctcvr", "mlp"), "ctr": ("ctr", "mlp")},
        division,
        [ctr(), ctcvr("ctcvr")],
    ),
    "esm2": (
        {t: ("shared", "mlp") for t in ("act", "buy_after_action", "buy_without", "click")},
        esm2,
        [
            ctr("click"),
            ctcar("act", "click", name="ctavr"),
            ctcvr("act", "buy_after_action", "buy_without", "click"),
        ],
    ),
    "esmc": (CLICK, esmc, [ctr("click"), ctcar("act", "click"), ctcvr("act", "buy", "click")]),
    "esms": (
        {
            "act": ("shared", "linear"),
            "buy": ("shared", "linear"),
            "click": ("shared", "mlp"),
            "twin": ("shared", "mlp"),
        },
        esms,
        [ctr("click"), ctcar("act", "click", "twin"), ctcvr("buy", "click", "twin")],
    ),
    "esmg": (CLICK, esmg, [ctr("click"), ctcar("act", "click"), ctcvr("buy")]),
    "escm2_ips": (SHARED, two, [ctr(), cvr(weight=by_propensity), ctcvr()]),
    "escm2_snips": (SHARED, two, [ctr(), cvr(weight=by_propensity, by_weights=True), ctcvr()]),
    "escm2_dr": (
        {**SHARED, "imputation": ("shared", "mlp")},
        two,
        [
            ctr(),
            Term("cvr_imputed", ["imputation"], with_y, lambda l, r: softplus(r["imputation"])),
            Term(
                "cvr_corrected",
                ["cvr", "imputation"],
                clicked_z,
                lambda l, r: bce(l["z"], r["pcvr"]) - softplus(r["imputation"]),
                weight=by_propensity,
            ),
            Term(
                "imputation",
                ["imputation"],
                clicked_z,
                lambda l, r: (stop(bce(l["z"], r["pcvr"])) - softplus(r["imputation"])) ** 2,
                weight=by_propensity,
            ),
            ctcvr(),
        ],
    ),
    "dcmt:prior_weight=0.5": (
        {"counterfactual": ("shared", "mlp"), **SHARED},
        two,
        [
            ctr(),
            cvr("cvr_factual", weight=by_propensity),
            Term(
                "cvr_counterfactual",
                ["counterfactual"],
                unclicked,
                lambda l, r: bce(jnp.ones(BATCH, bool), sigmoid(r["counterfactual"])),
                weight=lambda l, r: inverse(1 - r["pctr"]),
            ),
            Term(
                "prior",
                ["cvr", "counterfactual"],
                with_y,
                lambda l, r: jnp.abs(1 - (r["pcvr"] + sigmoid(r["counterfactual"]))),
                weight=lambda l, r: jnp.full(BATCH, 0.5),
            ),
            ctcvr(),
        ],
    ),
}


def table_name(towers, embeddings, table):
    is_alone = len({s for s, _ in towers.values()}) == 1
    return table if is_alone else f"{embeddings}.{table}"


def initial_layers(name, kind):
    widths = WIDTHS if kind == "mlp" else [INPUTS, 1]
    layers = {}
    for i in range(len(widths) - 1):
        layer = f"tower.{name}.{i}"
        fan_in, fan_out = widths[i], widths[i + 1]
        layers[layer + ".weight"] = base.initial_layer(layer + ".weight", (fan_out, fan_in), fan_in)
        layers[layer + ".bias"] = base.initial_layer(layer + ".bias", (fan_out,), fan_in)
    return layers


def inputs(rows, counts, dense):
    """[samples, INPUTS]; counts[field]: [samples, rows], a row's weights added up."""
    parts = []
    for n, feature in enumerate(FEATURES):
        parts.append(counts[n] @ rows[feature["table"]] if "table" in feature else dense[n])
    return jnp.concatenate(parts, axis=1)


def logit(layers, name, kind, x):
    h = x
    last = len(HIDDEN) if kind == "mlp" else 0
    for i in range(last + 1):
        layer = f"tower.{name}.{i}"
        h = h @ layers[layer + ".weight"].T + layers[layer + ".bias"]
        if i < last:
            h = jnp.maximum(h, 0.0)
    h = h[:, 0]
    if kind == "fm":
        for n, v in enumerate(VECTORS):
            for w in VECTORS[n + 1 :]:
                h = h + jnp.sum(x[:, v : v + DIM] * x[:, w : w + DIM], axis=1)
    return h


def logits_of(towers, layers, rows, counts, dense):
    xs = {s: inputs(rows[s], counts, dense) for s in rows}
    return {name: logit(layers, name, kind, xs[s]) for name, (s, kind) in towers.items()}


def occurs(term, batch, r, seen):
    """[samples]: 1 where the term counts. `seen` collects what was drawn and what rejected."""
    chance = None if term.chance is None else np.broadcast_to(np.array(term.chance(r)), BATCH)
    result = []
    for s, one in enumerate(batch):
        counts = term.applies(one)
        if counts and chance is not None:
            drawn = draw(term.name, one)
            assert abs(drawn - chance[s]) > 1e-5, "too near to be told apart in another precision"
            counts = drawn < chance[s]
            seen.add((term.name, bool(counts)))
        elif counts:
            seen.add((term.name, True))
        result.append(1.0 if counts else 0.0)
    return np.array(result)


def train(recipe):
    towers, rates, terms = RECIPES[recipe]
    towers = dict(sorted(towers.items()))
    _, keys, _ = base.initial_parameters()
    sets = sorted({s for s, _ in towers.values()})
    layers = {}
    for name, (_, kind) in towers.items():
        layers.update(initial_layers(name, kind))
    dense_optimizer = base.Optimized(DENSE, layers)
    rows = {
        s: {t: np.array([base.initial_row(table_name(towers, s, t), k) for k in keys[t]]) for t in TABLES}
        for s in sets
    }
    row_optimizers = {
        s: {t: [base.Optimized(EMBEDDINGS, {"row": row}) for row in rows[s][t]] for t in TABLES} for s in sets
    }
    last_batch = {s: {t: [0] * len(keys[t]) for t in TABLES} for s in sets}
    kept, predictions, seen = {}, [], set()
    losses, moved = {term.name: [] for term in terms}, set()
    samples = told(ACTION_SAMPLES) if any(term.applies is with_action for term in terms) else SAMPLES
    for step in range(1, len(samples) // BATCH + 1):
        batch = samples[(step - 1) * BATCH : step * BATCH]
        counts, dense = [], []
        for feature in FEATURES:
            values = [one["features"][feature["name"]] for one in batch]
            count = np.zeros((BATCH, len(keys[feature["table"]]) if "table" in feature else 0))
            if "table" in feature:
                for s, value in enumerate(values):
                    for key, weight in base.ids_of(feature, value):
                        count[s, keys[feature["table"]].index(key)] += weight
            counts.append(count)
            dense.append(np.array([[0.0 if v is None or "table" in feature else v] for v in values]))
        labels = {name: np.array([one[name] for one in batch]) for name in ("y", "action", "z") if name in batch[0]}

        def rates_of(layers, rows):
            logits = logits_of(towers, layers, rows, counts, dense)
            return {**logits, **rates(logits)}

        now = rates_of(layers, rows)
        for s, one in enumerate(batch):
            if one["y_final"]:
                kept[one["impression_id"]] = [float(now[t][s]) for t in towers]
            predictions.append(kept[one["impression_id"]])
        counted = {term.name: occurs(term, batch, now, seen) for term in terms}

        def term_loss(term, layers, rows):
            r = rates_of(layers, rows)
            weight = counted[term.name] * stop(term.weight(labels, r))
            divisor = jnp.sum(weight) if term.by_weights else BATCH
            return jnp.sum(weight * term.loss(labels, r)) / divisor

        def loss(layers, rows):
            return sum(term_loss(term, layers, rows) for term in terms)

        for term in terms:
            value, gradients = jax.value_and_grad(term_loss, argnums=1)(term, layers, rows)
            losses[term.name].append(float(value))
            moved |= {(term.name, n.split(".")[1]) for n, g in gradients.items() if np.any(np.array(g) != 0)}
        dense_gradients, row_gradients = jax.grad(loss, argnums=(0, 1))(layers, rows)
        dense_optimizer.update(step, {n: np.array(g) for n, g in dense_gradients.items()})
        for s in sets:
            trains = [
                any(
                    term.applies(one)
                    and (term.chance is None or recipe == "unbias" or counted[term.name][n] > 0)
                    and any(towers[t][0] == s for t in term.towers)
                    for term in terms
                )
                for n, one in enumerate(batch)
            ]
            for t in TABLES:
                fields = [n for n, f in enumerate(FEATURES) if f.get("table") == t]
                ids = [
                    {key for n in fields for key, _ in base.ids_of(FEATURES[n], one["features"][FEATURES[n]["name"]])}
                    if trained
                    else set()
                    for one, trained in zip(batch, trains)
                ]
                for k, key in enumerate(keys[t]):
                    if any(key in one for one in ids):
                        row_optimizers[s][t][k].update(step, {"row": np.array(row_gradients[s][t][k])})
                        last_batch[s][t][k] = step
    for term in terms:
        assert (term.name, True) in seen, (recipe, term.name)
        assert term.chance is None or (term.name, False) in seen, (recipe, term.name)
        assert any(losses[term.name]), (recipe, term.name)
        assert {tower for name, tower in moved if name == term.name} == set(term.towers), (recipe, term.name)
    tables = {}
    for s in sets:
        for t in TABLES:
            there = [k for k in range(len(keys[t])) if last_batch[s][t][k] > 0]
            tables[table_name(towers, s, t)] = {
                "keys": [keys[t][k] for k in there],
                "w": [row_optimizers[s][t][k].numbers("row")["w"] for k in there],
                "last_batch": [last_batch[s][t][k] for k in there],
            }
    return {
        "losses": losses,
        "logits": predictions,
        "towers": {name: dense_optimizer.numbers(name)["w"] for name in layers},
        "tables": tables,
    }


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, list):
        return [rounded(one) for one in value]
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return value


def main():
    recipes = {recipe: rounded(train(recipe)) for recipe in sorted(RECIPES)}
    numbers = {
        "dense": base.optimizer_steps.settings(DENSE),
        "embeddings": base.optimizer_steps.settings(EMBEDDINGS),
        "action_samples": told(ACTION_SAMPLES),
        "recipes": recipes,
    }
    json.dump(numbers, sys.stdout, indent=None, separators=(",", ":"))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
