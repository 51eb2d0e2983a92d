"""The built-in recipes side by side: shops whose true rates are known, and what one pass costs.

    zoo.py --build FOLDER [--part clicks|actions|logs] [--shops N] [--impressions N] [--days N]
           [--from SHARE] [--recipes A,B] [--set KEY=VALUE] [--data CONFIG] [--json FILE] [--quick]

Every shop is generated from a seed, which is also its models' seed, so shops and initial values
differ together. What is judged is the second half of each shop's samples, predicted before they
were learned. A difference is taken within a shop; its interval is over the shops. Everything but
the times is a function of the options.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import tomllib

import numpy
import xxhash

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench.engines import Calm, Watch, write_json  # noqa: E402

CLICK_RECIPES = (
    "esmm", "base", "aman:rate=0.1", "aman:rate=0.2", "aman:rate=0.5", "aman:rate=1",
    "oversampling:factor=2", "oversampling:factor=3", "oversampling:factor=5",
    "oversampling:factor=10", "unbias", "division", "esmm_ns", "escm2_ips", "escm2_snips",
    "escm2_dr", "dcmt", "lr", "fm")
ACTION_RECIPES = ("esm2", "esmm", "esmc", "esms", "esmg")
# One of each kind: parameters change neither the cost nor what equality of digests shows.
LOG_RECIPES = tuple(name for name in CLICK_RECIPES if name.partition("=")[2] in ("", "0.1", "5"))
QUICK_RECIPES = ("esmm", "base", "lr")
SETTINGS = ('snapshots.every="30 d"',)  # of shops: snapshots take time and change no figure

# Of each metric: its name, its heading, the factor it is shown with, its digits. Those of
# compare.json, and two of ranked_by_truth().
AGAINST_TRUTH = (
    ("cvr.true.mean_error", "mean \\|error\\|, 10⁻³", 1e3, 2),
    ("cvr.true.excess_log_loss", "excess log loss, 10⁻³", 1e3, 2),
    ("cvr.true.auc", "expected AUC, %", 1e2, 2),
)
AGAINST_LABELS = (
    ("cvr.auc", "CVR AUC, %", 1e2, 2),
    ("cvr.true.auc_clicked", "expected CVR AUC, %", 1e2, 2),
    ("ctcvr.auc", "CTCVR AUC, %", 1e2, 2),
)
RATIO = "cvr.true.ratio"

# The 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom: NIST/SEMATECH e-Handbook
# of Statistical Methods, section 1.3.6.7.2.
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201)


def half_interval(values):
    """Half the width of the 95 % interval of the mean of values that are about normal."""
    return (T_QUANTILES[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values)))


class Run:
    """A command that ended well; what it cost, its children included."""

    def __init__(self, command, calm):
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        watch, begin = Watch([]), time.monotonic()
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        self.seconds = time.monotonic() - begin
        self.cpu = used.ru_utime + used.ru_stime
        if process.returncode != 0:
            sys.exit(f"bench: {command[1]} ended with code {process.returncode}: {said}")
        others, stolen = watch.shares()
        calm.add({"seconds": self.seconds, "stolen": stolen,
                  "others": max(0.0, others - self.cpu / self.seconds)})


def sets(settings):
    return [part for setting in settings for part in ("--set", setting)]


def compare(arguments, config, recipes, settings, folder, calm, threads=1):
    """(what compare.json says, what it cost)"""
    shutil.rmtree(folder, ignore_errors=True)
    run = Run([arguments.build / "sluice", "compare", config, "--recipes", ",".join(recipes),
               "--threads", threads, "--bootstrap", "0", "--from", arguments.begin, "--data-dir",
               folder / "data", "--out", folder / "page", *sets(settings)], calm)
    result = json.loads((folder / "page" / "compare.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder / "page")
    return result, run


# ---- shops


def sigmoid(logits):
    return 1 / (1 + numpy.exp(-logits))


class Rates(dict):
    """A recipe's towers, and its rates as they are asked for: its expressions are Python's too."""

    def __init__(self, recipe, logits):
        path = recipe.partition(":")[0]
        if not path.endswith(".toml"):
            path = pathlib.Path(__file__).resolve().parents[1] / "config/recipes" / f"{path}.toml"
        text = tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        super().__init__(zip(sorted(text["towers"]), logits, strict=True))
        self.formulas = text["rates"]
        self.functions = {"sigmoid": sigmoid, "mix": lambda w, p, q: w * p + (1 - w) * q,
                          "ratio": lambda p, q: numpy.minimum(p / q, 1)}

    def __missing__(self, name):
        if name not in self.formulas:
            raise KeyError(name)
        self[name] = eval(self.formulas[name], self.functions, self)  # pylint: disable=eval-used
        return self[name]


def expected_auc(scores, rates):
    """The share of pairs in the right order, ties half, when every label is drawn by its rate."""
    _, place = numpy.unique(scores, return_inverse=True)
    positive, negative = numpy.bincount(place, rates), numpy.bincount(place, 1 - rates)
    own = numpy.sum(rates * (1 - rates))  # no sample makes a pair with itself
    won = numpy.sum(positive * (numpy.cumsum(negative) - negative / 2)) - own / 2
    return won / (positive.sum() * negative.sum() - own)


def true_pcvr(shop):
    """By the hash of the impression, as in compared.bin: two arrays, sorted by the first."""
    hashes, rates = [], []
    for path in sorted((shop / "truth").glob("*.csv")):
        with open(path, encoding="ascii") as file:
            next(file)
            for line in file:
                impression, _, pcvr = line.rstrip("\n").split(",")[:3]
                hashes.append(xxhash.xxh3_64_intdigest(impression))
                rates.append(float(pcvr))
    hashes, rates = numpy.array(hashes, dtype="<u8"), numpy.array(rates)
    order = numpy.argsort(hashes)
    return hashes[order], rates[order]


def ranked_by_truth(shop, data, recipes, result):
    """For each recipe how pCVR ranks by the true rates, over all impressions and over clicked ones:
    the AUC that labels drawn again and again would give in the mean (docs/formats.md)."""
    hashes, rates = true_pcvr(shop)
    facts = numpy.fromfile(data / "compared.bin",
                           dtype=[("user", "<u8"), ("impression", "<u8"), ("time", "<i8")])
    truth = rates[numpy.searchsorted(hashes, facts["impression"])]
    here = numpy.arange(1, len(facts) + 1) >= result["judged"]["first_sequence"]
    found = {}
    for recipe, model, group in zip(recipes, result["models"], result["groups"], strict=True):
        path = data / "models" / model["name"] / "scores.bin"
        towers = (path.stat().st_size // len(facts) - 8) // 4
        scores = numpy.fromfile(path, dtype=[("logits", "<f4", (towers,)), ("flags", "<u8")])
        pcvr = Rates(recipe, scores["logits"].T.astype(float))["pcvr"]
        judged = here & (scores["flags"] & 2 != 0)  # an impression's first sample
        clicked = here & (scores["flags"] & 9 == 9)  # its last
        error = numpy.abs(pcvr[judged] - truth[judged]).mean()
        if abs(error - group["metrics"]["cvr.true.mean_error"]["value"]) > 1e-9:
            sys.exit(f"bench: {recipe} was not judged by the same samples as in the comparison")
        found[recipe] = {"cvr.true.auc": expected_auc(pcvr[judged], truth[judged]),
                         "cvr.true.auc_clicked": expected_auc(pcvr[clicked], truth[clicked])}
    return found


def judge_shops(arguments, recipes, options, calm):
    """For each shop the metrics of each recipe, and the facts that name the shop."""
    folder = arguments.folder / "shop"
    found = []
    for seed in range(1, arguments.shops + 1):
        shutil.rmtree(folder, ignore_errors=True)
        Run([arguments.build / "sluice", "generate", "--out", folder, "--seed", seed, "--impressions",
             arguments.impressions, "--days", arguments.days, *options], calm)
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        result, _ = compare(arguments, folder / "shop.toml", recipes,
                            [f"model.seed={seed}", *SETTINGS, *arguments.set],
                            arguments.folder / "of", calm)
        metrics = ranked_by_truth(folder, arguments.folder / "of" / "data", recipes, result)
        for recipe, group in zip(recipes, result["groups"], strict=True):
            metrics[recipe].update((name, fact["value"])
                                   for name, fact in group["metrics"].items())
        found.append({"seed": seed, "samples_digest": result["samples_digest"],
                      "labels": expected["labels"], "true_rates": expected["true_rates"],
                      "bayes": expected["bayes"], "metrics": metrics,
                      "model_digests": {recipe: model["model_digest"] for recipe, model
                                        in zip(recipes, result["models"], strict=True)}})
        shutil.rmtree(folder)
        shutil.rmtree(arguments.folder / "of")
        print(f"bench: shop {seed} of {arguments.shops} judged", file=sys.stderr, flush=True)
    return found


def print_shops(shops):
    print("\n| shop | clicked | converted | mean pCVR, all | of clicked | best CVR AUC, % | "
          "best CTCVR AUC, % | samples digest |\n" + 8 * "|---" + "|")
    for shop in shops:
        labels, rates, best = shop["labels"], shop["true_rates"], shop["bayes"]
        print(f"| {shop['seed']} | {labels['clicked']:,} | {labels['converted']:,} | "
              f"{rates['mean_pcvr']:.4f} | {rates['mean_pcvr_clicked']:.4f} | "
              f"{100 * best['cvr_auc']:.1f} | {100 * best['ctcvr_auc']:.1f} | "
              f"`{shop['samples_digest']}` |")


def cell(shops, recipe, baseline, metric):
    """The mean over the shops; the difference to the baseline in bold where it is not by chance."""
    name, _, factor, digits = metric
    values = [factor * shop["metrics"][recipe][name] for shop in shops]
    mean = f"{statistics.fmean(values):.{digits}f}"
    if recipe == baseline or len(shops) < 2:
        return f"{mean} |"
    differences = [value - factor * shop["metrics"][baseline][name]
                   for value, shop in zip(values, shops)]
    middle, half = statistics.fmean(differences), half_interval(differences)
    text = f"{middle:+.{digits}f} ± {half:.{digits}f}".replace("-", "−")
    return f"{mean} | **{text}**" if abs(middle) > half else f"{mean} | {text}"


def print_recipes(shops, recipes, metrics, ratio):
    print("\n| recipe | " + " | ".join(f"{metric[1]} | to `{recipes[0]}`" for metric in metrics)
          + (" | Σp / Σr |\n" if ratio else " |\n")
          + (2 * len(metrics) + 1 + ratio) * "|---" + "|")
    for recipe in recipes:
        line = " | ".join(cell(shops, recipe, recipes[0], metric) for metric in metrics)
        if ratio:
            line += f" | {statistics.fmean(shop['metrics'][recipe][RATIO] for shop in shops):.2f}"
        print(f"| `{recipe}` | {line} |")


def shops_part(arguments, recipes, options, title, calm):
    recipes = tuple(arguments.recipes or recipes)
    shops = judge_shops(arguments, recipes, options, calm)
    print(f"\n## {title}: {arguments.shops} shops of {arguments.impressions:,} impressions in "
          f"{arguments.days} days, judged from {arguments.begin:g} on" + "".join(f", {setting}" for setting in arguments.set))
    print_shops(shops)
    print("\npCVR against the true rates, over all impressions:")
    print_recipes(shops, recipes, AGAINST_TRUTH, True)
    print("\nAgainst labels; CVR over clicked impressions, CTCVR over all:")
    print_recipes(shops, recipes, AGAINST_LABELS, False)
    return {"days": arguments.days, "options": options, "set": arguments.set, "shops": shops}


# ---- logs of your own: one pass over them against one replay a recipe


def logs_part(arguments, calm):
    config = arguments.data
    if config is None or not config.is_file():
        print(f"\n## One pass against single replays: skipped, {config or '--data'} is not there")
        return None
    recipes = tuple(arguments.recipes or (QUICK_RECIPES if arguments.quick else LOG_RECIPES))
    passes = []
    for threads in sorted({1, os.cpu_count()}):
        one = pass_and_replays(arguments, config, recipes, threads, calm)
        print_logs(config, one)
        if not all(row["equal"] for row in one["rows"]):
            sys.exit("bench: a model of the pass is not that of its replay")
        passes.append(one)
    return passes


def pass_and_replays(arguments, config, recipes, threads, calm):
    folder = arguments.folder / "logs"
    result, together = compare(arguments, config, recipes, arguments.set, folder, calm, threads)
    rows = []
    for recipe, model in zip(recipes, result["models"], strict=True):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        run = Run([arguments.build / "sluice", "replay", config, "--threads", threads,
                   "--data-dir", folder / "data", "--report", folder / "report.json",
                   *sets([f"model.recipe={recipe}", *arguments.set])], calm)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if report["samples_digest"] != result["samples_digest"]:
            sys.exit(f"bench: other samples in the replay with {recipe}")
        rows.append({"recipe": recipe, "cpu_s": run.cpu, "seconds": run.seconds,
                     "model_digest": report["model_digest"],
                     "equal": report["model_digest"] == model["model_digest"]})
    shutil.rmtree(folder)
    return {"threads": threads, "samples": result["samples"], "rows": rows,
            "samples_digest": result["samples_digest"],
            "together": {"cpu_s": together.cpu, "seconds": together.seconds}}


def print_logs(config, one):
    rows, together = one["rows"], one["together"]
    cpu, seconds = (sum(row[name] for row in rows) for name in ("cpu_s", "seconds"))
    print(f"\n## One pass against single replays, --threads {one['threads']}: {config.name}, "
          f"{one['samples']:,} samples, digest `{one['samples_digest']}`\n")
    print("| | CPU s | wall s | model digest | of the pass |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| `{row['recipe']}` | {row['cpu_s']:.1f} | {row['seconds']:.1f} | "
              f"`{row['model_digest']}` | {'equal' if row['equal'] else 'OTHER'} |")
    print(f"| {len(rows)} replays | {cpu:.1f} | {seconds:.1f} | | |")
    print(f"| one pass | {together['cpu_s']:.1f} | {together['seconds']:.1f} | | |")
    print(f"\nOne pass takes {together['cpu_s'] / cpu:.2f} of the CPU time and "
          f"{together['seconds'] / seconds:.2f} of the wall time of {len(rows)} replays.")


# ---- all of it


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     prog="./dev bench zoo")
    parser.add_argument("--build", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=pathlib.Path, metavar="CONFIG", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("clicks", "actions", "logs"), action="append",
                        help="only this; may be repeated")
    parser.add_argument("--shops", type=int, default=5, metavar="N",
                        help=f"default: 5; 2 to {len(T_QUANTILES) + 1}")
    parser.add_argument("--impressions", type=int, default=300_000, metavar="N",
                        help="of each shop; default: 300,000")
    parser.add_argument("--days", type=int, default=8, metavar="N",
                        help="of event time in a shop; default: 8, of which the first has no "
                             "clicked impression that is known not to be converted")
    parser.add_argument("--from", type=float, default=0.5, metavar="SHARE", dest="begin",
                        help="judge the samples from there on; default: 0.5")
    parser.add_argument("--recipes", type=lambda text: text.split(","), metavar="A,B",
                        help="others than the built-in ones; the first is the baseline")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a config key of every model; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="the figures, for programs")
    parser.add_argument("--quick", action="store_true", help="2 shops of 50,000, three recipes")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shops, arguments.impressions = 2, 50_000
    if not 2 <= arguments.shops <= len(T_QUANTILES) + 1:
        parser.error(f"--shops is from 2 to {len(T_QUANTILES) + 1}")
    arguments.folder = (arguments.build.parent / "bench-zoo").resolve()
    return arguments


def main():
    arguments = parse()
    parts, result, calm = arguments.part or ("clicks", "actions", "logs"), {}, Calm()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    try:
        if "clicks" in parts:
            recipes = QUICK_RECIPES if arguments.quick else CLICK_RECIPES
            result["clicks"] = shops_part(arguments, recipes, [], "Clicks and purchases", calm)
        if "actions" in parts:
            result["actions"] = shops_part(arguments, ACTION_RECIPES, ["--actions"],
                                           "With in-shop actions", calm)
        if "logs" in parts:
            result["logs"] = logs_part(arguments, calm)
    finally:
        shutil.rmtree(arguments.folder, ignore_errors=True)
    print("\n" + calm.text())
    write_json(arguments.json, result, calm)


if __name__ == "__main__":
    main()
