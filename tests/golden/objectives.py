"""Golden losses and gradients of the built-in recipes, made without any code of Sluice.

Each recipe's terms are spelled out here from the papers' formulas. Everything is computed with 660 decimal
digits, so that 1 - p loses nothing where p is 1 - e^-700, and differentiated by dual numbers. What no gradient
may pass through is taken as a plain number. A term whose samples are drawn is computed both ways.

    python3 objectives.py > objectives.json
"""

import decimal
import functools
import json
import random
import sys
from decimal import Decimal

decimal.getcontext().prec = 660

BATCH = 7  # samples, by which the terms are divided
WEIGHTS = Decimal("3.5")  # of a term that is divided by its weights' sum
ONE = Decimal(1)


class Dual:
    """A number and its derivatives by the logits."""

    def __init__(self, value, slopes):
        self.value = value
        self.slopes = slopes

    @staticmethod
    def of(x, like):
        return x if isinstance(x, Dual) else Dual(Decimal(x), [Decimal(0)] * len(like.slopes))

    def chain(self, value, factor):
        return Dual(value, [factor * s for s in self.slopes])

    def __add__(self, other):
        other = Dual.of(other, self)
        return Dual(self.value + other.value, [a + b for a, b in zip(self.slopes, other.slopes)])

    def __neg__(self):
        return self.chain(-self.value, Decimal(-1))

    def __sub__(self, other):
        return self + -Dual.of(other, self)

    def __rsub__(self, other):
        return Dual.of(other, self) - self

    def __mul__(self, other):
        other = Dual.of(other, self)
        slopes = [a * other.value + b * self.value for a, b in zip(self.slopes, other.slopes)]
        return Dual(self.value * other.value, slopes)

    __radd__ = __add__
    __rmul__ = __mul__


@functools.cache
def log_of(x):
    return x.ln()


@functools.cache
def exp_of(x):
    return x.exp()


def ln(x):
    return x.chain(log_of(x.value), ONE / x.value)


def sigmoid(x):
    p = ONE / (ONE + exp_of(-x.value))
    return x.chain(p, p * (ONE - p))


def softplus(x):
    return x.chain(log_of(ONE + exp_of(x.value)), ONE / (ONE + exp_of(-x.value)))


def square(x):
    return x * x


def absolute(x):
    """Within the error of a double around 0 it has no slope."""
    if abs(x.value) < Decimal("1e-15"):
        return x.chain(Decimal(0), Decimal(0))
    return x if x.value > 0 else -x if x.value < 0 else x.chain(x.value, Decimal(0))


def bce(label, p):
    return -ln(p) if label else -ln(1 - p)


def ratio(a, b):
    """At most 1, as a number: no loss is taken of it."""
    return min(ONE, a.value / b.value)


class Term:
    def __init__(self, name, applies, loss, weight=1, chance=None, by_weights=False):
        self.name = name
        self.applies = applies
        self.loss = loss
        self.weight = weight  # a number, or of the rates, which pass no gradient
        self.chance = chance
        self.by_weights = by_weights


def y_known(l):
    return l["y_final"]


def z_known(l):
    return l["z_final"]


def action_known(l):
    return l["action_final"]


def clicked_z(l):
    return l["y"] and l["z_final"]


CTR = Term("ctr", y_known, lambda l, r, x: bce(l["y"], r["pctr"]))
CTCVR = Term("ctcvr", z_known, lambda l, r, x: bce(l["z"], r["pctcvr"]))
CVR = Term("cvr", clicked_z, lambda l, r, x: bce(l["z"], r["pcvr"]))


def two_towers(x):
    p, q = sigmoid(x["ctr"]), sigmoid(x["cvr"])
    return {"pctr": p, "pcvr": q, "pctcvr": p * q}


def inverse(p):
    return min(ONE / p.value, Decimal(15))


def division(x):
    p, pq = sigmoid(x["ctr"]), sigmoid(x["ctcvr"])
    return {"pctr": p, "pctcvr": pq, "pcvr": ratio(pq, p)}


def esm2(x):
    y1, y2 = sigmoid(x["click"]), sigmoid(x["act"])
    y3, y4 = sigmoid(x["buy_after_action"]), sigmoid(x["buy_without"])
    q = y2 * y3 + (1 - y2) * y4
    return {"pctr": y1, "pctavr": y1 * y2, "pcvr": q, "pctcvr": y1 * q}


def esmc(x):
    p, c, q = sigmoid(x["click"]), sigmoid(x["act"]), sigmoid(x["act"] + x["buy"])
    return {"pctr": p, "pctcar": p * c, "pcvr": q, "pctcvr": p * q}


def esms(x):
    p, c, q = sigmoid(x["click"]), sigmoid(x["twin"] + x["act"]), sigmoid(x["twin"] + x["buy"])
    return {"pctr": p, "pctcar": p * c, "pcvr": q, "pctcvr": p * q}


def esmg(x):
    p, c, pq = sigmoid(x["click"]), sigmoid(x["act"]), sigmoid(x["buy"])
    return {"pctr": p, "pctcar": p * c, "pctcvr": pq, "pcvr": ratio(pq, p)}


def dcmt(x):
    return {**two_towers(x), "not": sigmoid(x["counterfactual"])}


def ctcar(name, rate):
    return Term(name, action_known, lambda l, r, x: bce(l["action"], r[rate]))


ESMM = (["ctr", "cvr"], two_towers, [CTR, CTCVR])
BASE = (["ctr", "cvr"], two_towers, [CTR, CVR])


def with_cvr(**changes):
    return (["ctr", "cvr"], two_towers, [CTR, Term("cvr", clicked_z, CVR.loss, **changes)])


RECIPES = {
    "esmm": ESMM,
    "esmm_ns": ESMM,
    "lr": ESMM,
    "fm": ESMM,
    "base": BASE,
    "aman": (
        BASE[0],
        BASE[1],
        [
            CTR,
            CVR,
            Term(
                "missing_as_negative",
                lambda l: l["y_final"] and not l["y"],
                lambda l, r, x: bce(0, r["pcvr"]),
                chance=True,
            ),
        ],
    ),
    "oversampling": with_cvr(weight=lambda l, r: 5 if l["z"] else 1),
    "unbias": with_cvr(chance=True),
    "division": (["ctcvr", "ctr"], division, [CTR, CTCVR]),
    "esm2": (["act", "buy_after_action", "buy_without", "click"], esm2, [CTR, ctcar("ctavr", "pctavr"), CTCVR]),
    "esmc": (["act", "buy", "click"], esmc, [CTR, ctcar("ctcar", "pctcar"), CTCVR]),
    "esms": (["act", "buy", "click", "twin"], esms, [CTR, ctcar("ctcar", "pctcar"), CTCVR]),
    "esmg": (["act", "buy", "click"], esmg, [CTR, ctcar("ctcar", "pctcar"), CTCVR]),
    "escm2_ips": (
        ["ctr", "cvr"],
        two_towers,
        [CTR, Term("cvr", clicked_z, CVR.loss, weight=lambda l, r: inverse(r["pctr"])), CTCVR],
    ),
    "escm2_snips": (
        ["ctr", "cvr"],
        two_towers,
        [
            CTR,
            Term("cvr", clicked_z, CVR.loss, weight=lambda l, r: inverse(r["pctr"]), by_weights=True),
            CTCVR,
        ],
    ),
    "escm2_dr": (
        ["ctr", "cvr", "imputation"],
        two_towers,
        [
            CTR,
            Term("cvr_imputed", y_known, lambda l, r, x: softplus(x["imputation"])),
            Term(
                "cvr_corrected",
                clicked_z,
                lambda l, r, x: bce(l["z"], r["pcvr"]) - softplus(x["imputation"]),
                weight=lambda l, r: inverse(r["pctr"]),
            ),
            Term(
                "imputation",
                clicked_z,
                lambda l, r, x: square(bce(l["z"], r["pcvr"]).value - softplus(x["imputation"])),
                weight=lambda l, r: inverse(r["pctr"]),
            ),
            CTCVR,
        ],
    ),
    "dcmt": (
        ["counterfactual", "ctr", "cvr"],
        dcmt,
        [
            CTR,
            Term("cvr_factual", clicked_z, CVR.loss, weight=lambda l, r: inverse(r["pctr"])),
            Term(
                "cvr_counterfactual",
                lambda l: l["y_final"] and not l["y"],
                lambda l, r, x: bce(1, r["not"]),
                weight=lambda l, r: inverse(1 - r["pctr"]),
            ),
            Term(
                "prior",
                y_known,
                lambda l, r, x: absolute(1 - (r["pcvr"] + r["not"])),
                weight=Decimal("0.001"),
            ),
            CTCVR,
        ],
    ),
}


def labels(y=None, action=None, z=None):
    """A label that is None is not final on this sample; then y was, with a click."""
    return {
        "y": y is None or bool(y),
        "y_final": y is not None,
        "action": bool(action),
        "action_final": action is not None,
        "z": bool(z),
        "z_final": z is not None,
    }


SAMPLES = [
    labels(y=0, action=0, z=0),
    labels(y=1),
    labels(y=1, action=1, z=1),
    labels(y=1, action=1, z=0),
    labels(action=0),
    labels(action=1),
    labels(z=0),
    labels(z=1),
]


def logits_of(towers, seed):
    """Ordinary and extreme ones; a float has each exactly."""
    dice = random.Random(seed)
    lists = [[dice.randint(-64, 64) / 16 for _ in towers] for _ in range(3)]
    lists += [[dice.choice([-40.0, 40.0, 0.5]) for _ in towers] for _ in range(3)]
    lists += [[dice.choice([-700.0, 700.0]) for _ in towers] for _ in range(2)]
    lists.append([dice.choice([-700.0, -40.0, -2.0, 0.0, 2.0, 40.0, 700.0]) for _ in towers])
    return lists


def plain(rate):
    return rate.value if isinstance(rate, Dual) else rate


def predicted(rate):
    """p, log p and log(1-p); None where that is -infinity."""
    p = plain(rate)
    return [float(p), float(log_of(p)), None if p == 1 else float(log_of(ONE - p))]


def total(terms, is_drawn, one, rates, logits):
    """The loss and its gradients; "scales" are the gradients' sums with all terms taken as positive."""
    result = Dual.of(0, next(iter(logits.values())))
    scales = [Decimal(0) for _ in logits]
    for term in terms:
        if not term.applies(one) or (term.chance and not is_drawn):
            continue
        weight = term.weight(one, rates) if callable(term.weight) else term.weight
        divisor = WEIGHTS if term.by_weights else Decimal(BATCH)
        part = term.loss(one, rates, logits) * (Decimal(weight) / divisor)
        result = result + part
        scales = [scale + abs(slope) for scale, slope in zip(scales, part.slopes)]
    gradients = [float(slope) for slope in result.slopes]
    return {"loss": float(result.value), "gradients": gradients, "scales": [float(s) for s in scales]}


def cases_of(name):
    towers, rates_of, terms = RECIPES[name]
    cases = []
    for values in logits_of(towers, name):
        count = len(towers)
        logits = {
            tower: Dual(Decimal(value), [Decimal(n == k) for k in range(count)])
            for n, (tower, value) in enumerate(zip(towers, values))
        }
        rates = rates_of(logits)
        samples = []
        for one in SAMPLES:
            drawn = total(terms, True, one, rates, logits)
            samples.append({"drawn": drawn})
            if any(term.chance for term in terms):
                samples[-1]["rejected"] = total(terms, False, one, rates, logits)
        cases.append(
            {
                "logits": values,
                "rates": [predicted(rates[rate]) for rate in ("pctr", "pcvr", "pctcvr")],
                "samples": samples,
            }
        )
    return cases


def main():
    json.dump(
        {
            "batch": BATCH,
            "weights": float(WEIGHTS),
            "samples": SAMPLES,
            "recipes": {name: {"towers": RECIPES[name][0], "cases": cases_of(name)} for name in sorted(RECIPES)},
        },
        sys.stdout,
        indent=None,
        separators=(",", ":"),
    )
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
