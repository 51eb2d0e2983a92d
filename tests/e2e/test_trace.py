"""sluice trace, against what replays say of the same logs."""

import csv
import json
import random
import signal
import subprocess

import sluice

SEED = 41
# With a checkpoint at every batch end digests.jsonl tells where each batch ends.
EVERY_BATCH = {"checkpoints.every": 1, "checkpoints.interval": '"1 h"'}
USER_ITEM = {"join.attribution": '"user_item"'}


class TraceCase(sluice.Case):
    def trace(self, config, identity, settings=None, *arguments, expect=0):
        words = [sluice.BINARY, "trace", config, identity, "--json", *arguments]
        for key, value in (settings or {}).items():
            words += ["--set", f"{key}={value}"]
        done = sluice.call(words, cwd=self.folder)
        self.assertEqual(done.returncode, expect, done.stderr)
        return json.loads(done.stdout) if expect == 0 else done

    def replayed(self, config, name, settings):
        """The lines of --predictions by impression, and the ends of all batches."""
        predictions = self.folder / f"{name}.csv"
        self.replay(config, name, settings, "--predictions", predictions)
        lines = {}
        with predictions.open(newline="") as file:
            for line in csv.DictReader(file):
                lines.setdefault(line["impression_id"], []).append(line)
        return lines, sorted(sluice.digests(self.folder / name))

    def check(self, config, name, settings, identity, lines, batch_ends):
        trace = self.trace(config, identity, settings, "--data-dir", self.folder / name)
        samples = [sample for impression in trace["impressions"]
                   for sample in impression["samples"]]
        self.assertEqual([sample["sequence"] for sample in samples],
                         [int(line["sequence"]) for line in lines], identity)
        for sample, line in zip(samples, lines):
            for flag in ("y", "y_final", "z", "z_final"):
                self.assertEqual(int(sample[flag]), int(line[flag]), (identity, flag))
            folder = sample["data_folder"]
            for rate in ("pctr", "pcvr", "pctcvr"):
                self.assertAlmostEqual(folder["prediction"][rate], float(line[rate]), 12)
            self.assertTrue(folder["committed"] and folder["trained"])
            self.assertGreaterEqual(folder["kept_snapshot"], sample["sequence"])
            batch = sample["batch"]
            number = next(n for n, end in enumerate(batch_ends) if end >= sample["sequence"])
            self.assertEqual((batch["number"], batch["from"], batch["to"], batch["complete"]),
                             (number + 1, batch_ends[number - 1] + 1 if number else 1,
                              batch_ends[number], True))
        for impression in trace["impressions"]:
            self.assertEqual(impression["y"]["value"], int(lines[0]["y"]))
            self.assertEqual(impression["z"]["value"], int(lines[-1]["z"]))
            self.assertEqual(impression["click"] is not None, lines[0]["y"] == "1")
            self.assertEqual(impression["purchase"] is not None, lines[-1]["z"] == "1")
        self.assertTrue(trace["everything_final"])
        return trace

    def some_ids(self, lines, count):
        """Of every kind: converted, clicked, neither, with one sample and with two."""
        kinds = {}
        for identity, samples in lines.items():
            kind = (samples[0]["y"], samples[-1]["z"], len(samples))
            kinds.setdefault(kind, []).append(identity)
        self.assertGreaterEqual(len(kinds), 3, list(kinds))
        draw = random.Random(SEED)
        return [identity for ids in kinds.values()
                for identity in draw.sample(ids, min(len(ids), count))]


class TraceShop(TraceCase):
    def setUp(self):
        super().setUp()
        self.shop = self.folder / "shop"
        self.config = sluice.generate(
            self.shop, "--impressions", 6000, "--seed", 12, "--repeats", 0.3, "--duplicates", 0.02,
            "--orphans", 0.01, "--malformed", 0.01, "--late-clicks", 0.2, "--late-purchases", 0.3,
            "--users", 300, "--segments", 2)

    def test_it_says_what_the_replay_said(self):
        lines, ends = self.replayed(self.config, "data", EVERY_BATCH)
        refused = {}
        for identity in self.some_ids(lines, 6):
            trace = self.check(self.config, "data", EVERY_BATCH, identity, lines[identity], ends)
            self.assertEqual(trace["data_folder"]["samples"], ends[-1])
            used = [record["stream"] for record in trace["records"] if record["outcome"] == "used"]
            expected = ["impressions"] + ["clicks"] * (lines[identity][0]["y"] == "1") + \
                ["purchases"] * (lines[identity][-1]["z"] == "1")
            self.assertEqual(sorted(used), sorted(expected))
            for record in trace["records"]:
                if record["outcome"] == "refused":
                    refused[record["reason"]] = refused.get(record["reason"], 0) + 1
        # Refusals that leave no dead letter are told too.
        self.assertIn("repeat", refused)

    @sluice.slow
    def test_batches_of_event_time(self):
        settings = {**EVERY_BATCH, "training.batch_span": '"10 min"'}
        lines, ends = self.replayed(self.config, "data", settings)
        self.assertGreater(len(ends), 30)
        for identity in self.some_ids(lines, 2):
            self.check(self.config, "data", settings, identity, lines[identity], ends)

    def test_attribution_by_user_and_item(self):
        settings = {**EVERY_BATCH, **USER_ITEM}
        lines, ends = self.replayed(self.config, "data", settings)
        for identity in self.some_ids(lines, 3):
            self.check(self.config, "data", settings, identity, lines[identity], ends)

    def test_of_several_clicks_the_last_counts(self):
        settings = {**EVERY_BATCH, "join.attributed_click": '"last"'}
        lines, ends = self.replayed(self.config, "data", settings)
        replaced = 0
        for identity in self.some_ids(lines, 8):
            trace = self.check(self.config, "data", settings, identity, lines[identity], ends)
            used = [record for record in trace["records"]
                    if record["stream"] == "clicks" and record["outcome"] == "used"]
            counting = [record["time"] for record in used if "replaced" not in record]
            self.assertEqual(counting, [impression["click"] for impression in trace["impressions"]
                                        if impression["click"] is not None])
            self.assertEqual(counting, [record["time"] for record in used][-1:])
            replaced += len(used) - len(counting)
        self.assertGreater(replaced, 0)

    def test_the_values_of_several_purchases(self):
        shop = self.folder / "valued"
        config = sluice.generate(shop, "--values", "--impressions", 6000, "--seed", 12,
                                 "--repeats", 0.9, "--users", 300)
        lines, ends = self.replayed(config, "data", EVERY_BATCH)
        several = 0
        for identity in self.some_ids(lines, 12):
            trace = self.check(config, "data", EVERY_BATCH, identity, lines[identity], ends)
            for impression in trace["impressions"]:
                for sample, line in zip(impression["samples"], lines[identity]):
                    self.assertEqual(sample["value"], float(line["value"]))
                used = [record for record in trace["records"]
                        if record["stream"] == "purchases" and record["outcome"] == "used"]
                self.assertAlmostEqual(sum(record["value"] for record in used),
                                       impression["value"], 6)
                self.assertEqual(impression["value"], float(lines[identity][-1]["value"]))
                several += len(used) > 1
        self.assertGreater(several, 0)

    def test_refused_records_only(self):
        self.replay(self.config, "data")
        listed = sluice.call([sluice.BINARY, "dead-letters", "list", "--limit", 0, "--json",
                              "--data-dir", self.folder / "data"])
        letters = json.loads(listed.stdout)["dead_letters"]
        checked = set()
        for letter in letters:
            if letter["reason"] in checked or letter["stream"] == "purchases":
                continue
            shown = sluice.call([sluice.BINARY, "dead-letters", "show", "--json", "--data-dir",
                                 self.folder / "data", letter["number"]])
            text = json.loads(shown.stdout).get("text", "")
            if '"impression_id":"' not in text:
                continue
            identity = text.split('"impression_id":"', 1)[1].split('"', 1)[0]
            trace = self.trace(self.config, identity, None, "--data-dir", self.folder / "data")
            ours = [record for record in trace["records"]
                    if (record["stream"], record["partition"], record["position"]) ==
                    (letter["stream"], letter["partition"], letter["position"])]
            self.assertEqual(len(ours), 1, (letter, trace))
            self.assertEqual((ours[0]["outcome"], ours[0]["reason"]),
                             ("refused", letter["reason"]))
            checked.add(letter["reason"])
        self.assertLessEqual({"malformed", "no_open_impression"}, checked)

    def test_open_impressions_and_unknown_ones(self):
        # Without a data folder the logs' present ends decide nothing: windows there are open.
        last = max((json.loads(line) for path in self.shop.glob("impressions/*/*.jsonl")
                    for line in path.read_bytes().splitlines()
                    if self.is_record(line)), key=lambda record: record["ts"])
        trace = self.trace(self.config, last["impression_id"])
        self.assertFalse(trace["everything_final"])
        for impression in trace["impressions"]:
            self.assertIn("until", impression["y"])
        done = self.trace(self.config, "nobody", expect=1)
        self.assertIn("no record names impression nobody", done.stderr)
        self.trace(self.config, "", expect=2)
        self.trace(self.config, "1-1", None, "--data-dir", self.folder / "nowhere", expect=2)
        text = sluice.call([sluice.BINARY, "trace", self.config, last["impression_id"]],
                           cwd=self.folder)
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertIn("click window", text.stdout + "click window" * (not trace["impressions"]))

    @staticmethod
    def last_line(data):
        """The last sequence in digests.jsonl, which is just being written."""
        try:
            whole = (data / "digests.jsonl").read_text().rpartition("\n")[0]
            return json.loads(whole.splitlines()[-1])["sequence"]
        except (OSError, IndexError):
            return 0

    @staticmethod
    def is_record(line):
        try:
            record = json.loads(line)
            return isinstance(record["ts"], int) and record["ts"] < 1.8e12 and \
                isinstance(record["impression_id"], str) and record["ts"] > 1.6e12
        except (ValueError, KeyError, TypeError):
            return False

    def test_other_logs_than_the_folder_s_are_found(self):
        lines, _ = self.replayed(self.config, "data", EVERY_BATCH)
        other = sluice.generate(self.folder / "other", "--impressions", 6000, "--seed", 13)
        identity = max(lines, key=lambda name: int(lines[name][-1]["sequence"]))
        done = self.trace(other, identity, None, "--data-dir", self.folder / "data", "--to-end",
                          expect=1)
        self.assertRegex(done.stderr, "other samples|ends before the place that was its end")

    def test_another_config_than_the_folder_s_is_found_at_once(self):
        """Whatever the impression: a life that ends before the first digest line would be a lie."""
        lines, _ = self.replayed(self.config, "data", {})
        first = min(lines, key=lambda name: int(lines[name][-1]["sequence"]))
        for key, value in (("join.click_window", '"20 min"'), ("join.attribution", '"user_item"'),
                           ("training.batch_size", "33"), ("model.name", '"other"'),
                           ("features", None)):
            settings = {key: value}
            config = self.config
            if key == "features":
                config = self.shop / "fewer.toml"
                config.write_text(self.config.read_text().replace('path = "features.position"',
                                                                  'path = "features.place"'))
                self.assertNotEqual(config.read_text(), self.config.read_text())
                settings = {}
            done = self.trace(config, first, settings, "--data-dir", self.folder / "data",
                              expect=2)
            self.assertIn("only model:" if key == "model.name" else key, done.stderr)
        # What is no part of the model may differ.
        trace = self.trace(self.config, first, {"training.threads": 1}, "--data-dir",
                           self.folder / "data")
        self.assertEqual(trace["data_folder"]["compared"],
                         trace["data_folder"]["compared_up_to"] > 0)

    def test_it_says_when_nothing_was_compared(self):
        # A trace looks around every 20 000 records: so much must lie before the first digest line.
        self.config = sluice.generate(self.folder / "long", "--impressions", 40000, "--seed", 14)
        settings = {"checkpoints.every": 100000, "checkpoints.interval": '"1 h"',
                    "snapshots.every": '"30 d"'}
        lines, _ = self.replayed(self.config, "data", settings)
        first = min(lines, key=lambda name: int(lines[name][-1]["sequence"]))
        told = [self.trace(self.config, first, settings, "--data-dir", self.folder / "data", *more)
                for more in ((), ("--to-end",))]
        self.assertEqual([trace["data_folder"]["compared"] for trace in told], [False, True])
        words = [sluice.BINARY, "trace", self.config, first, "--data-dir", self.folder / "data"]
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        self.assertIn("were not compared with those of", sluice.call(words).stdout)
        self.assertNotIn("not compared", sluice.call([*words, "--to-end"]).stdout)

    def test_while_a_service_runs(self):
        """Quiet partitions let the service go on where the logs alone decide nothing more."""
        settings = {"training.batch_size": 32, "checkpoints.every": 200}
        lines, _ = self.replayed(self.config, "data", settings)
        held = self.replay(self.config, "held", settings, "--at-end", "hold")["samples"]
        data = self.folder / "live"
        process = subprocess.Popen(
            sluice.command("run", self.config, data,
                           {**settings, "source.idle_after": '"300 ms"'}),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            sluice.wait_until(lambda: self.last_line(data) > held + 100, 60, "passing the quiet")
            known = self.last_line(data)
            ids = [[name for name in lines if first < int(lines[name][-1]["sequence"]) <= last]
                   for first, last in ((0, held), (held, known))]
            for identity in [name for some in ids for name in random.Random(SEED).sample(some, 3)]:
                trace = self.trace(self.config, identity, settings, "--data-dir", data)
                samples = trace["impressions"][0]["samples"]
                self.assertEqual([sample["sequence"] for sample in samples],
                                 [int(line["sequence"]) for line in lines[identity]])
                self.assertTrue(samples[-1]["data_folder"]["committed"])
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)
        finally:
            process.kill()
            process.wait()

    @sluice.needs_kafka
    def test_from_the_broker(self):
        lines, ends = self.replayed(self.config, "data", EVERY_BATCH)
        kafka = {**EVERY_BATCH, "source.type": '"kafka"', "source.brokers": f'"{sluice.KAFKA}"',
                 **sluice.load_topics(self.shop, self.folder.name + "-")}
        self.replay(self.config, "broker", kafka)
        for identity in self.some_ids(lines, 1):
            self.check(self.config, "broker", kafka, identity, lines[identity], ends)


@sluice.needs_expedia
class TraceExpedia(TraceCase):
    def test_it_says_what_the_replay_said(self):
        settings = {"checkpoints.every": 1, "checkpoints.interval": '"1 h"',
                    "training.batch_size": 4096}
        lines, ends = self.replayed(sluice.EXPEDIA, "data", settings)
        for identity in self.some_ids(lines, 2):
            self.check(sluice.EXPEDIA, "data", settings, identity, lines[identity], ends)
