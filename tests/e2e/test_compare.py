"""Several models over one join: each is what it would be alone, and the tables are right.

The numbers are computed a second time with numpy from what other verbs write: the predictions of a
replay of each config alone, the users in the logs, the shop's true rates.
"""

import csv
import html.parser
import json
import math
import os
import re
import signal
import unittest

import numpy

import sluice

SHOP = ["--impressions", 4000, "--users", 60, "--items", 50, "--partitions", 2, "--span", "4h",
        "--click-window", "5 min", "--conversion-window", "1 h", "--seed", 9]
SMALL = {"model.embedding_dim": 4, "training.batch_size": 64, "training.lane": 16,
         "snapshots.every": '"1 h"', "checkpoints.every": 500, "checkpoints.interval": '"1 h"',
         "store.commit_records": 250, "store.commit_interval": '"1 h"', "source.read_records": 100,
         "store.max_learner_lag": 400}
# Each its own: another network, learning rate, batch, seed.
MODELS = {
    "wide": {"model.hidden": "[16]"},
    "deep": {"model.hidden": "[8, 8]", "training.dense.learning_rate": 0.01},
    "late": {"model.hidden": "[8]", "training.batch_size": 300, "model.seed": 5},
}
RESAMPLINGS = 40


def write_configs(shop):
    """One config a model; returns their paths by name."""
    text = shop.read_text()
    paths = {}
    for name in MODELS:
        paths[name] = shop.parent / f"{name}.toml"
        paths[name].write_text(text.replace("[model]\n", f'[model]\nname = "{name}"\n'))
    return paths


# By model, which features of the shop it does without; "late" names one that no other has.
WITHOUT = {"wide": ["user", "interests", "category"], "deep": ["age", "brands", "surface"],
           "late": ["category", "position"]}


def give_own_features(configs):
    """Overlapping features, no model with all of them; returns how many there are."""
    named = set()
    for name, path in configs.items():
        kept = [line for line in path.read_text().splitlines()
                if line.split("=")[0].strip() not in WITHOUT[name] or "path" not in line]
        if name == "late":
            kept.insert(kept.index("[features]") + 1, 'asked = { path = "event_id", type = "id" }')
        path.write_text("\n".join(kept) + "\n")
        named |= {line.split("=")[0].strip() for line in kept if "{ path =" in line}
    return named


def settings_in(path, settings):
    """The settings as a config of their own: what --set says for one model alone."""
    lines = path.read_text()
    for key, value in settings.items():
        lines = set_key(lines, key, value)
    path.write_text(lines)


def set_key(text, key, value):
    section, name = key.rsplit(".", 1)
    if section == "training.dense":
        return text.replace('dense      = { optimizer = "adam", learning_rate = 3e-3 }',
                            f'dense      = {{ optimizer = "adam", {name} = {value} }}')
    if f"[{section}]" not in text:
        return text + f"\n[{section}]\n{name} = {value}\n"
    kept = []
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == f"[{section}]"
        if inside and line.split("=")[0].strip() == name:
            continue
        kept.append(line)
        if line.strip() == f"[{section}]":
            kept.append(f"{name} = {value}")
    return "\n".join(kept) + "\n"


# ---- a second computation of the tables


def auc(scores, labels):
    """By ranks, ties half; None where one class is missing."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return None
    distinct, place = numpy.unique(scores, return_inverse=True)
    counts = numpy.bincount(place, minlength=len(distinct))
    last = numpy.cumsum(counts)
    ranks = last[place] - (counts[place] - 1) / 2
    return (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives)


def grouped_auc(scores, labels, users):
    total = weight = 0
    for user in set(users):
        mine = users == user
        own = auc(scores[mine], labels[mine])
        if own is not None:
            total += own * mine.sum()
            weight += mine.sum()
    return total / weight if weight else None


def label_metrics(rates, labels, users):
    loss = -numpy.where(labels, numpy.log(rates), numpy.log1p(-rates)).mean()
    base = labels.mean()
    entropy = -base * math.log(base) - (1 - base) * math.log(1 - base)
    return {"auc": auc(rates, labels), "gauc": grouped_auc(rates, labels, users), "log_loss": loss,
            "normalized_entropy": loss / entropy, "calibration": rates.sum() / labels.sum()}


def truth_metrics(rates, truth):
    divergence = (truth * numpy.log(numpy.maximum(truth, 1e-300) / rates) +
                  (1 - truth) * (numpy.log1p(-truth) - numpy.log1p(-rates)))
    return {"mean_error": abs(rates - truth).mean(), "rms_error": ((rates - truth) ** 2).mean() ** .5,
            "excess_log_loss": divergence.mean(), "ratio": rates.sum() / truth.sum()}


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected_metrics(predictions, users, truth, begin):
    rows = read_csv(predictions)[begin:]
    column = lambda name: numpy.array([float(row[name]) for row in rows])
    flag = lambda name: numpy.array([row[name] == "1" for row in rows])
    who = numpy.array([users[row["impression_id"]] for row in rows])
    y, y_final, z, z_final = flag("y"), flag("y_final"), flag("z"), flag("z_final")
    metrics = {}
    for rate, label, chosen in (("ctr", y, y_final), ("cvr", z, z_final & y), ("ctcvr", z, z_final)):
        rates = column(f"p{rate}")
        for name, value in label_metrics(rates[chosen], label[chosen], who[chosen]).items():
            metrics[f"{rate}.{name}"] = value
        pctr, pcvr = numpy.array([truth[row["impression_id"]] for row in rows]).T
        true = {"ctr": pctr, "cvr": pcvr, "ctcvr": pctr * pcvr}[rate]
        for name, value in truth_metrics(rates[y_final], true[y_final]).items():
            metrics[f"{rate}.true.{name}"] = value
    return metrics


def digest_lines(data, model):
    lines = (data / "digests.jsonl").read_text().splitlines()
    return {line for line in lines if json.loads(line)["model"] == model}


class Page(html.parser.HTMLParser):
    """What a page loads, and the text of its elements with an id."""

    def __init__(self, text):
        super().__init__()
        self.loaded = []
        self.texts = {}
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.loaded += [value for key, value in attributes.items()
                        if key in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append((tag, attributes.get("id", tag)))

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"

    def handle_data(self, data):
        if self.open:
            name = self.open[-1][1]
            self.texts[name] = self.texts.get(name, "") + data


class Compare(sluice.Case):
    def setUp(self):
        super().setUp()
        shop = sluice.generate(self.folder / "shop", *SHOP)
        self.shop = shop.parent
        sluice.add_clicks_and_purchases(self.shop, clicks=5, purchases=10)
        self.configs = write_configs(shop)
        for name, settings in MODELS.items():
            settings_in(self.configs[name], {**SMALL, **settings})

    def words(self, data, *arguments, configs=None):
        return [sluice.BINARY, "compare", *(configs or self.configs.values()), "--data-dir", data,
                "--bootstrap", RESAMPLINGS, *arguments]

    def compare(self, data, *arguments, expect=0, configs=None):
        done = sluice.call(self.words(data, *arguments, configs=configs))
        self.assertEqual(done.returncode, expect, done.stdout[-2000:] + done.stderr[-2000:])
        return done

    def read(self, out):
        return json.loads((out / "compare.json").read_text())

    def alone(self, name):
        predictions = self.folder / f"{name}.csv"
        report = self.replay(self.configs[name], f"alone-{name}", None, "--predictions", predictions)
        return report, predictions

    def test_each_model_is_what_it_is_alone(self):
        self.check_each_alone()

    def test_each_model_has_features_of_its_own(self):
        self.assertEqual(len(give_own_features(self.configs)), 16)
        self.check_each_alone()
        page = self.read(self.folder / "out")
        for feature in ("user", "age", "category"):
            without = [model["differing_keys"][f"features.{feature}"] is None
                       for model in page["models"]]
            self.assertEqual(without, [feature in WITHOUT[name] for name in MODELS])
        # Whoever reads what one of them learned need not know the others' features.
        identity = read_csv(self.folder / "wide.csv")[0]["impression_id"]
        traced = sluice.call([sluice.BINARY, "trace", self.configs["wide"], identity, "--data-dir",
                              self.folder / "data"])
        self.assertEqual(traced.returncode, 0, traced.stderr)

    def test_own_features_and_kills(self):
        """The features of all are kept; others at a later start are refused, with nothing begun."""
        give_own_features(self.configs)
        data, out = self.folder / "data", self.folder / "out"
        done = sluice.call(self.words(data),
                           env={**os.environ, "SLUICE_KILL_AT": "checkpoint.rename:after:15"})
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        two = list(self.configs.values())[:2]
        said = self.compare(data, expect=2, configs=two).stderr
        self.assertIn("feature asked:event_id:id is not there any more", said)
        self.assertNotIn("is new", said)
        newer = self.shop / "newer.toml"
        newer.write_text(set_key(self.configs["wide"].read_text(), "model.name", '"newer"').replace(
            "[features]\n", '[features]\nmore = { path = "features.more", type = "id" }\n'))
        said = self.compare(data, expect=2, configs=[*self.configs.values(), newer]).stderr
        self.assertIn("feature more:features.more:id is new", said)
        self.assertFalse((data / "models" / "newer").exists())
        self.assertIn("is not there any more",
                      self.replay(self.configs["wide"], "data", expect=2).stderr)
        self.compare(data, "--out", out)
        for model in self.read(out)["models"]:
            report, _ = self.alone(model["name"])
            self.assertEqual(model["model_digest"], report["model_digest"])

    def check_each_alone(self):
        out = self.folder / "out"
        self.compare(self.folder / "data", "--out", out, "--threads", 2)
        comparison = self.read(out)
        self.assertGreater(comparison["samples"], 4000)
        self.assertEqual([model["name"] for model in comparison["models"]], list(MODELS))
        data = self.folder / "data" / "models"
        for model, group in zip(comparison["models"], comparison["groups"]):
            name = model["name"]
            report, predictions = self.alone(name)
            self.assertEqual(model["model_digest"], report["model_digest"], name)
            self.assertEqual(comparison["samples_digest"], report["samples_digest"])
            lone = self.folder / f"alone-{name}" / "models" / name
            kept = [*lone.glob("snapshots/*/weights.safetensors"),
                    *lone.glob("snapshots/*/manifest.json")]
            self.assertGreater(len(kept), 4)
            for path in kept:
                mine = data / path.relative_to(lone.parent)
                self.assertEqual(mine.read_bytes(), path.read_bytes(), mine)
            self.assertEqual(digest_lines(self.folder / "data", name),
                             digest_lines(self.folder / f"alone-{name}", name))
            self.assertEqual((data / name / "scores.bin").read_bytes(),
                             (lone / "scores.bin").read_bytes())
            self.check_metrics(comparison, group, report, predictions)

    def check_metrics(self, comparison, group, report, predictions):
        users = {}
        for path in (self.shop / "impressions").iterdir():
            for line in path.read_text().splitlines():
                event = json.loads(line)
                users[event["impression_id"]] = event["user_id"]
        truth = {}
        for path in (self.shop / "truth").iterdir():
            for row in read_csv(path):
                truth[row["impression_id"]] = (float(row["pctr"]), float(row["pcvr"]))
        begin = comparison["samples"] // 2
        self.assertEqual(comparison["judged"]["first_sequence"], begin + 1)
        expected = expected_metrics(predictions, users, truth, begin)
        self.assertEqual(set(group["metrics"]), set(expected))
        for name, value in expected.items():
            found = group["metrics"][name]
            # True rates are kept as floats, and pairs of nearly equal rates may change places.
            exact = name.endswith(("log_loss", "entropy", "calibration")) and ".true." not in name
            self.assertAlmostEqual(found["value"], value, delta=(1e-9 if exact else 1e-5) * value,
                                   msg=name)
            self.assertLessEqual(found["low"], found["high"], name)
        for rate in ("ctr", "cvr", "ctcvr"):
            half = report["metrics"]["second_half"][rate]
            for name in ("log_loss", "normalized_entropy", "calibration"):
                self.assertAlmostEqual(group["metrics"][f"{rate}.{name}"]["value"], half[name],
                                       delta=1e-12 * max(1, half[name]))

    def test_killed_and_started_again(self):
        whole = self.folder / "whole-out"
        self.compare(self.folder / "whole", "--out", whole)
        data, out = self.folder / "killed", self.folder / "killed-out"
        steps = ("checkpoint.rename:after:1", "compared.append:after:2", "scores.append:before:40",
                 "checkpoint.write:before:3", "compared.cut:after:1", "compared.sync:before:1",
                 "store.commit:after:2", "snapshot.rename:before:1", "checkpoint.sync:after:3")
        killed = []
        for step in steps:
            done = sluice.call(self.words(data, "--out", out, "--threads", 2),
                               env={**os.environ, "SLUICE_KILL_AT": step})
            self.assertIn(done.returncode, (-signal.SIGKILL, 0), f"{step}: {done.stderr[-2000:]}")
            killed += [step] if done.returncode else []
        self.assertGreaterEqual(len(killed), 6, killed)
        self.compare(data, "--out", out)
        self.assertEqual(self.read(out), self.read(whole))
        for name in ("compare.csv", "compare.html"):
            self.assertEqual((out / name).read_bytes(), (whole / name).read_bytes())
        self.assertEqual((data / "compared.bin").read_bytes(),
                         (self.folder / "whole" / "compared.bin").read_bytes())

    def test_killed_in_the_middle_it_goes_on(self):
        data = self.folder / "data"
        done = sluice.call(self.words(data),
                           env={**os.environ, "SLUICE_KILL_AT": "checkpoint.rename:after:15"})
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        self.compare(data, "--out", self.folder / "out")
        for model in self.read(self.folder / "out")["models"]:
            report, _ = self.alone(model["name"])
            self.assertEqual(model["model_digest"], report["model_digest"])

    def test_finished_before_it_says_the_same(self):
        data = self.folder / "data"
        page = data / "page"  # in a data folder that is begun by this
        first = self.compare(data, "--out", page)
        again = self.compare(data, "--out", self.folder / "again")
        tables = lambda done: done.stdout[done.stdout.index("judged"):done.stdout.index("the page")]
        self.assertEqual(tables(first), tables(again))
        self.assertEqual(self.read(page), self.read(self.folder / "again"))
        # A replay of one of them goes on with its folder.
        report = self.replay(self.configs["deep"], "data")
        self.assertEqual(report["model_digest"], self.read(page)["models"][1]
                         ["model_digest"])

    def test_a_model_that_comes_later(self):
        """It learns from the sample log where that is whole, else it is told to begin anew."""
        two = list(self.configs.values())[:2]
        keep = ["--set", "checkpoints.every=1000000"]
        data, out = self.folder / "data", self.folder / "out"
        self.compare(data, *keep, configs=two)
        self.compare(data, *keep, "--out", out)
        report, _ = self.alone("late")
        self.assertEqual(self.read(out)["models"][2]["model_digest"], report["model_digest"])
        trimmed = self.folder / "trimmed"
        often = ["--set", "checkpoints.every=100", "--set", "store.commit_records=200", "--set",
                 "store.max_learner_lag=400"]
        self.compare(trimmed, *often, configs=two)
        done = self.compare(trimmed, *often, expect=2)
        self.assertRegex(done.stderr, "sample log reaches back to .* late must be learned from 1 on")

    def test_seeds_and_a_baseline(self):
        one = [self.configs["wide"]]
        out = self.folder / "out"
        self.compare(self.folder / "data", "--seeds", 3, "--out", out, "--from", 0, configs=one)
        group = self.read(out)["groups"][0]
        self.assertEqual((group["name"], group["seeds"]), ("wide", 3))
        self.assertGreater(group["metrics"]["ctr.auc"]["seed_deviation"], 0)
        self.compare(self.folder / "data", "--seeds", 3, "--out", out, "--from", 0, "--baseline",
                     "wide-seed2", configs=one)
        comparison = self.read(out)
        self.assertEqual(comparison["baseline"], "wide-seed2")
        self.assertEqual(comparison["judged"]["samples"], comparison["samples"])
        difference = comparison["groups"][0]["differences"]["ctr.auc"]
        self.assertTrue(difference["low"] <= difference["value"] <= difference["high"])
        done = self.compare(self.folder / "data", "--seeds", 3, "--baseline", "none", expect=2,
                            configs=one)
        self.assertIn("wide-seed1", done.stderr)

    def test_the_page_is_whole_and_loads_nothing(self):
        out = self.folder / "out"
        self.compare(self.folder / "data", "--out", out)
        text = (out / "compare.html").read_text(encoding="utf-8")
        page = Page(text)
        self.assertEqual(page.open, [])
        self.assertEqual(page.loaded, [])
        self.assertNotRegex(text, r"@import|url\(|fetch\(|XMLHttpRequest|new WebSocket|import\(")
        self.assertEqual(json.loads(page.texts["comparison"]), self.read(out))
        self.assertIn("Chart.js v3", text)
        self.assertIn("MIT licence", text)
        rows = read_csv(out / "compare.csv")
        self.assertEqual(len(rows), 3 * 27)
        values = {(row["model"], row["metric"]): row for row in rows}
        for group in self.read(out)["groups"]:
            for name, entry in group["metrics"].items():
                row = values[group["name"], name]
                self.assertEqual(float(row["value"]), entry["value"])
                self.assertEqual(row["difference"] == "", group["name"] == "wide")

    def test_refusals(self):
        wide, deep, late = self.configs.values()
        for configs, arguments, said in (
                ([wide], [], "two models or more"),
                ([wide, wide], [], "two models are named wide"),
                ([wide, self.shop / "none.toml"], [], "none.toml"),
                ([wide, deep], ["--recipes", "nonsense"], "model.recipe"),
                ([wide, deep], ["--truth", self.folder / "none"], "--truth"),
                ([wide, deep], ["--out", wide], "--out"),
                ([wide, deep], ["--from", 1], "--from"),
                ([wide, deep], ["--set", "join.tick=0"], "join.tick")):
            done = self.compare(self.folder / "data", *arguments, expect=2, configs=configs)
            self.assertIn(said, done.stderr)
        self.assertFalse((self.folder / "data").exists())
        text = late.read_text()
        late.write_text(re.sub("(?m)^position .*$",
                               'position = { path = "features.place", type = "id" }', text))
        done = self.compare(self.folder / "data", expect=2)
        self.assertIn(f"{late} cannot be compared with {wide} over one join", done.stderr)
        self.assertIn("features.position is features.place, id, not features.position, id",
                      done.stderr)
        late.write_text(set_key(text, "join.click_window", '"6 min"'))
        done = self.compare(self.folder / "data", expect=2)
        self.assertIn('join.click_window is "6 min", not "5 min"', done.stderr)


if __name__ == "__main__":
    unittest.main()
