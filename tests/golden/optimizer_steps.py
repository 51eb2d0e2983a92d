"""Golden numbers for the update rules, made in float64 without any code of Sluice.

Every rule is written as its paper or its reference library has it, one number at a time. Of each the
cases run over several steps, with l2, a warm-up that ends on the way, a clipped norm that holds back
some gradients and not others, an epsilon and a start of the accumulator that are large enough to see,
and an l1 that leaves some weights at 0 and others not. esmm_step.py trains whole models by the same
rules. tests/codebase/check_golden.py checks that this script writes the numbers that are kept.

    python3 optimizer_steps.py > optimizer_steps.json
"""

import json
import math
import sys

DIM = 19  # two blocks of eight and a tail
STEPS = 7

DEFAULTS = {
    "learning_rate": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "momentum": 0.9,
    "initial_accumulator": 0.0,
    "ftrl_beta": 1.0,
    "l1": 0.0,
    "l2": 0.0,
    "warmup_steps": 0,
    "clip_norm": 0.0,
}

COMMON = {"l2": 0.125, "warmup_steps": 4, "clip_norm": 2.0}
CASES = [
    {"optimizer": "adam", "learning_rate": 0.05, "beta1": 0.8, "beta2": 0.97, "epsilon": 0.03} | COMMON,
    {"optimizer": "adagrad", "learning_rate": 0.1, "epsilon": 0.06, "initial_accumulator": 0.25} | COMMON,
    {"optimizer": "rowwise_adagrad", "learning_rate": 0.1, "epsilon": 0.06, "initial_accumulator": 0.25}
    | COMMON,
    {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.7} | COMMON,
    {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.0} | COMMON,
    {"optimizer": "ftrl", "learning_rate": 0.2, "ftrl_beta": 0.6, "l1": 1.25} | COMMON,
]


def settings(case):
    return {**DEFAULTS, **case}


def slot_names(c):
    names = {
        "adam": ["adam_m", "adam_v"],
        "adagrad": ["adagrad_sum"],
        "rowwise_adagrad": ["rowwise_adagrad_sum"],
        "sgd": ["momentum"] if c["momentum"] else [],
        "ftrl": ["ftrl_z", "ftrl_n"],
    }
    return names[c["optimizer"]]


def start(c, weights):
    """The slots of weights that were never updated; the one of rowwise_adagrad is one number."""
    if c["optimizer"] == "adagrad":
        return [[c["initial_accumulator"]] * len(weights)]
    if c["optimizer"] == "rowwise_adagrad":
        return [[c["initial_accumulator"]]]
    if c["optimizer"] == "ftrl":
        # Solves w = -z / (beta / alpha) for z.
        z = [-w * c["ftrl_beta"] / c["learning_rate"] for w in weights]
        return [z, [0.0] * len(weights)]
    return [[0.0] * len(weights) for _ in slot_names(c)]


def clip(c, gradient):
    norm = math.sqrt(sum(g * g for g in gradient))
    if c["clip_norm"] == 0 or norm <= c["clip_norm"]:
        return gradient
    return [g * c["clip_norm"] / norm for g in gradient]


def rate(c, step):
    return c["learning_rate"] * (min(1.0, step / c["warmup_steps"]) if c["warmup_steps"] else 1.0)


def adam(c, step, w, slots, gradient):
    m, v = slots
    for i, g in enumerate(gradient):
        g += c["l2"] * w[i]
        m[i] = c["beta1"] * m[i] + (1 - c["beta1"]) * g
        v[i] = c["beta2"] * v[i] + (1 - c["beta2"]) * g * g
        m_hat = m[i] / (1 - c["beta1"] ** step)
        v_hat = v[i] / (1 - c["beta2"] ** step)
        w[i] -= rate(c, step) * m_hat / (math.sqrt(v_hat) + c["epsilon"])


def adagrad(c, step, w, slots, gradient):
    for i, g in enumerate(gradient):
        g += c["l2"] * w[i]
        slots[0][i] += g * g
        w[i] -= rate(c, step) * g / (math.sqrt(slots[0][i]) + c["epsilon"])


def rowwise_adagrad(c, step, w, slots, gradient):
    gradient = [g + c["l2"] * w[i] for i, g in enumerate(gradient)]
    slots[0][0] += sum(g * g for g in gradient) / len(gradient)
    for i, g in enumerate(gradient):
        w[i] -= rate(c, step) / (math.sqrt(slots[0][0]) + c["epsilon"]) * g


def sgd(c, step, w, slots, gradient):
    for i, g in enumerate(gradient):
        g += c["l2"] * w[i]
        if slots:
            slots[0][i] = c["momentum"] * slots[0][i] + g
            g = slots[0][i]
        w[i] -= rate(c, step) * g


def ftrl(c, step, w, slots, gradient):
    z, n = slots
    alpha, beta = c["learning_rate"], c["ftrl_beta"]
    for i, g in enumerate(gradient):
        sigma = (math.sqrt(n[i] + g * g) - math.sqrt(n[i])) / alpha
        z[i] += rate(c, step) / alpha * g - sigma * w[i]
        n[i] += g * g
        if abs(z[i]) <= c["l1"]:
            w[i] = 0.0
        else:
            sign = 1.0 if z[i] > 0 else -1.0
            w[i] = -(z[i] - sign * c["l1"]) / ((beta + math.sqrt(n[i])) / alpha + c["l2"])


RULES = {"adam": adam, "adagrad": adagrad, "rowwise_adagrad": rowwise_adagrad, "sgd": sgd, "ftrl": ftrl}


def update(c, step, w, slots, gradient):
    """One step in place, the gradient not yet clipped."""
    RULES[c["optimizer"]](c, step, w, slots, clip(c, gradient))


def numbers(count, seed):
    """Multiples of 1/64 from -1 to 1, so exact in f32 too."""
    values = []
    for _ in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((seed >> 33) % 129 / 64 - 1)
    return values


def run(case, number):
    c = settings(case)
    weights = numbers(DIM, 100 + number)
    slots = start(c, weights)
    w = list(weights)
    result = {"config": c, "slots": slot_names(c), "weights": weights, "start": [list(s) for s in slots]}
    result["steps"] = []
    norms = []
    for step in range(1, STEPS + 1):
        scale = 2.0 if step % 3 == 0 else 0.5  # a power of two: exact
        gradient = [scale * g for g in numbers(DIM, 1000 * number + step)]
        norms.append(math.sqrt(sum(g * g for g in gradient)))
        update(c, step, w, slots, gradient)
        result["steps"].append({"gradient": gradient, "w": list(w), "slots": [list(s) for s in slots]})
    assert min(norms) < c["clip_norm"] < max(norms)
    if c["l1"]:
        zeros = [sum(one == 0 for one in step["w"]) for step in result["steps"]]
        assert min(zeros) > 0 and max(zeros) < DIM and len(set(zeros)) > 1
    return result


def main():
    cases = [run(case, number) for number, case in enumerate(CASES)]
    json.dump({"dim": DIM, "cases": cases}, sys.stdout, separators=(",", ":"))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
