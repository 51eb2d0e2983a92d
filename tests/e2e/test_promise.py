"""The one promise: the same logs and config give the same bits, however they are read."""

import csv
import json
import pathlib
import shutil
import signal
import subprocess

import sluice

SEED = 20

# What may change nothing: threads, commits, how much is read at a time, memory.
VARIANTS = {
    "again": ({}, []),
    "one-thread": ({}, ["--threads", 1]),
    "two-threads": ({}, ["--threads", 2]),
    "three-threads": ({}, ["--threads", 3]),
    "many-commits": ({"store.commit_interval": '"1 ms"', "store.commit_records": 500,
                      "source.read_records": 17}, []),
    "few-commits": ({"store.commit_interval": '"1 h"', "source.read_records": 100000,
                     "store.memtable_bytes": '"1 MiB"'}, []),
    "checkpoints": ({"checkpoints.every": 777, "source.read_records": 1}, []),
}
# A kill should meet many commits: small ones, and a join that does not run ahead of the learner.
RESTLESS = {"store.commit_interval": '"5 ms"', "store.commit_records": 300,
            "store.max_learner_lag": 600, "source.read_records": 50, "checkpoints.every": 400}


class Promise:
    """The tests, on the logs that a subclass names: self.config and self.split()."""

    settings = dict(sluice.MANY_CHECKPOINTS)

    def undisturbed(self):
        return self.replay(self.config, "undisturbed", self.settings)

    def test_variants(self):
        expected = self.undisturbed()
        self.assertGreater(expected["samples"], 10000)
        self.assert_adds_up(expected)
        for name, (settings, arguments) in VARIANTS.items():
            with self.subTest(name):
                report = self.replay(self.config, name, {**self.settings, **settings}, *arguments)
                self.assert_same(report, expected)

    @sluice.slow
    def test_killed_twenty_times(self):
        expected = self.undisturbed()
        settings = {**self.settings, **RESTLESS}
        predictions = self.folder / "killed.csv"
        words = sluice.command("replay", self.config, self.folder / "killed", settings,
                               "--predictions", predictions)
        sluice.kill_many_times(words, self.folder / "killed", 20, SEED)
        report = self.replay(self.config, "killed", settings, "--predictions", predictions)
        self.assert_same(report, expected)
        whole = self.folder / "whole.csv"
        self.replay(self.config, "whole", self.settings, "--predictions", whole)
        self.assertEqual(predictions.read_text(), whole.read_text())

    def test_held_at_half_and_continued(self):
        expected = self.undisturbed()
        half, full = self.split()
        half_settings = {**self.settings, "source.root": f'"{half}"'}
        held = self.replay(self.config, "held", half_settings, "--at-end", "hold")
        self.assertFalse(held["closed"])
        self.assertGreater(held["samples"], 1000)
        self.assertLess(held["samples"], expected["samples"])
        full_settings = {**self.settings, "source.root": f'"{full}"'}
        self.assert_same(self.replay(self.config, "held", full_settings), expected)

    @sluice.needs_kafka
    def test_from_the_broker(self):
        expected = self.undisturbed()
        kafka = self.kafka_settings()
        self.assert_same(self.replay(self.config, "broker", {**self.settings, **kafka}), expected)

    @sluice.needs_kafka
    @sluice.slow
    def test_run_on_the_broker_with_kills(self):
        """The live service, killed on the way, says the same digests at the same sequences."""
        self.undisturbed()
        expected = sluice.digests(self.folder / "undisturbed")
        settings = {**self.settings, **self.kafka_settings(), **RESTLESS,
                    "checkpoints.every": self.settings["checkpoints.every"],
                    "source.idle_after": '"1 s"'}
        data = self.folder / "live"
        words = sluice.command("run", self.config, data, settings)
        for _ in range(4):
            self.assertTrue(sluice.run_and_kill(words, self.kill_after_s * 1.5))
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True)
        try:
            common = lambda: self.common(data, expected)
            sluice.wait_until(lambda: len(common()) >= self.live_lines, 120,
                              f"{self.live_lines} common lines of digests.jsonl")
            # The kills may have left all the lines there: then it is still starting.
            sluice.wait_until(lambda: (data / "LOCK").read_text().strip() == str(process.pid), 60,
                              "its hold on the data folder")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        self.assertEqual(process.returncode, 0, errors[-2000:])
        same = common()
        self.assertGreaterEqual(len(same), 20)
        for sequence in same:
            self.assertEqual(sluice.digests(data)[sequence], expected[sequence], sequence)

    def common(self, data, expected):
        if not (data / "digests.jsonl").exists():
            return []
        whole = (data / "digests.jsonl").read_text()
        if not whole.endswith("\n"):
            return []  # a line is just being written
        return sorted(set(sluice.digests(data)) & set(expected))

    def kafka_settings(self):
        topics = sluice.load_topics(self.logs, self.folder.name + "-")
        return {"source.type": '"kafka"', "source.brokers": f'"{sluice.KAFKA}"', **topics}


@sluice.needs_expedia
class ExpediaPromise(Promise, sluice.Case):
    config = sluice.EXPEDIA
    logs = sluice.SHARED / "data" / "expedia"
    settings = {"checkpoints.every": 500, "checkpoints.interval": '"1 h"'}
    kill_after_s = 0.35
    live_lines = 40

    def split(self):
        """The logs cut into two segments each, at one moment of event time."""
        half, full = self.folder / "half", self.folder / "full"
        for stream in ("impressions", "clicks", "purchases"):
            for path in sorted((self.logs / stream).glob("*.jsonl.zst")):
                text = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
                lines = text.splitlines(keepends=True)
                early = [line for line in lines if self.time_of(line) < 1361000000000]
                late = lines[len(early):]
                partition = path.name.split(".")[0]
                for root, segments in ((half, [early]), (full, [early, late])):
                    folder = root / stream / partition
                    folder.mkdir(parents=True)
                    for number, segment in enumerate(segments):
                        (folder / f"{number:05}.jsonl").write_bytes(b"".join(segment))
        return half, full

    @staticmethod
    def time_of(line):
        return int(line.split(b'"ts":', 1)[1].split(b",", 1)[0])


class ShopPromise(Promise, sluice.Case):
    """A generated shop with everything that can go wrong in a log."""

    kill_after_s = 0.35
    live_lines = 30
    options = []

    def setUp(self):
        super().setUp()
        self.logs = self.folder / "shop"
        self.config = sluice.generate(
            self.logs, "--impressions", 40000, "--seed", 11, "--segments", 4, "--repeats", 0.05,
            "--late-clicks", 0.01, "--late-purchases", 0.01, "--orphans", 0.002,
            "--malformed", 0.002, "--late", 0.002, "--duplicates", 0.002, *self.options)

    def split(self):
        half = self.folder / "half"
        shutil.copytree(self.logs, half)
        for path in half.glob("*/*/*.jsonl"):
            if int(path.name.split(".")[0]) >= 2:
                path.unlink()
        return half, self.logs

    def test_counts_are_the_expected_ones(self):
        expected = json.loads((self.logs / "expected.json").read_text())
        report = self.undisturbed()
        self.assertEqual(report["labels"], expected["labels"])
        refused = {reason: count for reason, count in report["refused"].items() if count}
        self.assertEqual(refused, {reason: count for reason, count in
                                   expected["refused"].items() if count})

    def snapshots(self, name):
        """Every promised byte, by folder and file."""
        root = self.folder / name
        return {str(path.relative_to(root)): path.read_bytes()
                for path in root.glob("models/*/snapshots/*/*") if path.name != "provenance.json"}

    def test_deltas_are_the_same_after_kills(self):
        settings = {**self.settings, "snapshots.every": '"20 min"', "snapshots.full_every": 4,
                    "snapshots.keep": 1000}
        whole = self.replay(self.config, "whole", settings)
        settings.update(RESTLESS)
        words = sluice.command("replay", self.config, self.folder / "killed", settings)
        sluice.kill_many_times(words, self.folder / "killed", 5, SEED)
        self.assert_same(self.replay(self.config, "killed", settings), whole)
        expected = self.snapshots("whole")
        kinds = [json.loads(text)["kind"] for path, text in sorted(expected.items())
                 if path.endswith("manifest.json")]
        self.assertGreater(len(kinds), 8)
        self.assertEqual(kinds, ["delta" if n % 4 else "full" for n in range(len(kinds))])
        found = self.snapshots("killed")
        self.assertEqual(sorted(found), sorted(expected))
        for path, text in expected.items():
            self.assertEqual(found[path], text, path)
        verified = sluice.call([sluice.BINARY, "snapshot", "verify", "--all",
                                self.folder / "killed"])
        self.assertEqual(verified.returncode, 0, verified.stderr)

    def test_values_are_the_expected_ones(self):
        """Summed over each conversion window, killed on the way or not."""
        logs = self.folder / "valued"
        config = sluice.generate(logs, "--values", "--impressions", 20000, "--seed", 12,
                                 "--repeats", 0.5, "--late-purchases", 0.2, "--late", 0.002)
        expected = json.loads((logs / "expected.json").read_text())
        report = self.replay(config, "whole", self.settings)
        self.assert_adds_up(report)
        self.assertEqual(report["used"]["purchases"], expected["labels"]["converted"] +
                         expected["labels"]["further_purchases"])
        self.assertGreater(expected["labels"]["further_purchases"], 3)
        self.assertAlmostEqual(report["labels"]["value"], expected["value"], 6)
        self.assertEqual(report["labels"]["without_value"], 0)
        settings = {**self.settings, **RESTLESS}
        predictions = self.folder / "killed.csv"
        words = sluice.command("replay", config, self.folder / "killed", settings,
                               "--predictions", predictions)
        sluice.kill_many_times(words, self.folder / "killed", 4, SEED)
        killed = self.replay(config, "killed", settings, "--predictions", predictions)
        self.assert_same(killed, report)
        with predictions.open(newline="") as file:
            values = [float(line["value"]) for line in csv.DictReader(file)]
        self.assertAlmostEqual(sum(values), expected["value"], 3)


class ActionsPromise(ShopPromise):
    """The same shop with a fourth stream, and a model that learns from it."""

    options = ["--actions", "--action-window", "2 h"]
    settings = {**ShopPromise.settings, "model.recipe": '"esm2"'}
    test_values_are_the_expected_ones = None  # of a shop of its own, the same as above
    test_deltas_are_the_same_after_kills = None
