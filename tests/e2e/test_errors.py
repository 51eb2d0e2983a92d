"""What goes wrong ends with one clear line and the right exit code, and nothing is lost."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import unittest

import sluice

TEN_MISTAKES = """\
[source]
type = "flies"
root = "."
[streams]
max_out_of_orderness = "10 parsecs"
impresions = { topic = "impressions" }
[join]
click_windw = "30 min"
tick = 0
[features]
site = { path = "features.site", type = "idd" }
[model]
embedding_dim = -3
hidden = ["many"]
[training]
batch_sizes = 32
dense = { optimizer = "adam", learning_rte = 1e-3 }
"""


class ConfigErrors(sluice.Case):
    def test_ten_mistakes_ten_messages(self):
        path = self.folder / "wrong.toml"
        path.write_text(TEN_MISTAKES)
        for verb in ("check", "replay"):
            done = sluice.call([sluice.BINARY, verb, path])
            self.assertEqual(done.returncode, 2)
            lines = [line for line in done.stderr.splitlines() if "wrong.toml:" in line]
            self.assertEqual(len(lines), 10, done.stderr)
        for number, wanted in ((2, "source.type"), (5, "max_out_of_orderness"),
                               (6, "streams.impressions"), (8, "join.click_window"),
                               (9, "join.tick"), (11, "features.site"), (13, "embedding_dim"),
                               (14, "hidden"), (16, "training.batch_size"),
                               (17, "learning_rate")):
            self.assertTrue(any(f":{number}:" in line and wanted in line for line in lines),
                            (number, wanted, done.stderr))

    def test_wrong_words(self):
        self.assertEqual(sluice.call([sluice.BINARY]).returncode, 2)
        self.assertEqual(sluice.call([sluice.BINARY, "repaly"]).returncode, 2)
        self.assertEqual(sluice.call([sluice.BINARY, "replay"]).returncode, 2)
        self.assertEqual(sluice.call([sluice.BINARY, "--help"]).returncode, 0)
        for verb in ("run", "replay", "score", "snapshot", "check", "generate", "import"):
            done = sluice.call([sluice.BINARY, verb, "--help"])
            self.assertEqual(done.returncode, 0)
            self.assertGreater(len(done.stdout.splitlines()), 5, verb)


class OperatingErrors(sluice.Case):
    """Each on a small shop; afterwards the undisturbed result is reached all the same."""

    def setUp(self):
        super().setUp()
        self.logs = self.folder / "shop"
        self.config = sluice.generate(self.logs, "--impressions", 6000, "--seed", 3)
        self.expected = self.replay(self.config, "undisturbed")

    def fails(self, name, code, *needles, settings=None, arguments=(), verb="replay"):
        done = self.replay(self.config, name, settings, *arguments, verb=verb, expect=code)
        lines = [line for line in done.stderr.splitlines() if line.startswith("sluice: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        for needle in needles:
            self.assertIn(str(needle), lines[0])

    def test_another_semantic_config_is_refused(self):
        for key, value in (("join.click_window", '"20 min"'), ("training.batch_size", 100),
                           ("streams.max_out_of_orderness", '"11 s"')):
            self.fails("undisturbed", 2, key.split(".")[1], settings={key: value})
        # An operational key may change.
        report = self.replay(self.config, "undisturbed", {"store.commit_records": 10})
        self.assert_same(report, self.expected)

    def test_missing_file(self):
        gone = self.logs / "clicks" / "00001.jsonl"
        kept = gone.rename(self.folder / "kept")
        self.fails("data", 1, "clicks", "partition 1")
        kept.rename(gone)
        self.assert_same(self.replay(self.config, "data"), self.expected)

    def test_file_that_is_not_what_it_says(self):
        path = self.logs / "impressions" / "00002.jsonl"
        text = path.read_bytes()
        compressed = path.with_suffix(".jsonl.zst")
        subprocess.run(["zstd", "-q", "--rm", path, "-o", compressed], check=True)
        whole = compressed.read_bytes()
        compressed.write_bytes(whole[:len(whole) // 2])
        self.fails("cut", 1, compressed.name, "cut short")
        compressed.write_bytes(b"this is no zstd\n" + whole)
        self.fails("no-zstd", 1, compressed.name, "zstd")
        compressed.write_bytes(whole)
        self.assert_same(self.replay(self.config, "cut"), self.expected)
        compressed.unlink()
        # Lines that are no JSON are records like others: refused, and never a reason to stop.
        path.write_bytes(b"no JSON\n" * 5 + text)
        report = self.replay(self.config, "no-json")
        self.assertEqual(report["refused"]["malformed"], 5)
        self.assertEqual(report["dead_letters"]["kept"],
                         self.expected["dead_letters"]["kept"] + 5)
        self.assertEqual(report["model_digest"], self.expected["model_digest"])

    def test_a_changed_log_is_found(self):
        words = sluice.command("replay", self.config, self.folder / "data", None,
                               "--at-end", "hold")
        self.assertEqual(sluice.call(words).returncode, 0)
        for path in (self.logs / "impressions").glob("*.jsonl"):
            path.write_bytes(path.read_bytes().replace(b'"position":', b'"positiom":'))
        self.fails("data", 1, "impressions", "changed")

    def spoil_impressions(self, change):
        """Changes the features of twenty impressions in the middle of a log; gives their ids."""
        path = self.logs / "impressions" / "00000.jsonl"
        lines = path.read_text().splitlines()
        spoiled = []
        for number in range(len(lines) // 2, len(lines) // 2 + 20):
            record = json.loads(lines[number])
            change(record["features"])
            spoiled.append(record["impression_id"])
            lines[number] = json.dumps(record)
        path.write_text("".join(line + "\n" for line in lines))
        return spoiled

    def stops_at_a_number(self, name, settings, needle, spoiled):
        """It stops before it publishes anything of the batch; the next start says the same."""
        undisturbed = self.replay(self.config, name + "-undisturbed", settings)
        expected = sluice.digests(self.folder / (name + "-undisturbed"))
        lines = []
        checkpoints = []
        published = self.folder / name / "models" / "model"
        for _ in range(2):
            done = self.replay(self.spoiled_config, name, settings, expect=1)
            lines += [line for line in done.stderr.splitlines() if line.startswith("sluice: ")]
            checkpoints.append(sorted(path.name for path in (published / "checkpoints").iterdir()))
        self.assertEqual(lines[:1], lines[1:])
        self.assertIn(needle, lines[0])
        found = re.search(r"sample (\d+) \(impression (\S+)\): ", lines[0])
        self.assertIn(found[2], spoiled)
        self.assertEqual(checkpoints[0], checkpoints[1])
        self.assertLess(int(checkpoints[0][-1]), int(found[1]))
        made = sluice.digests(self.folder / name)
        self.assertGreater(len(made), 2)
        self.assertEqual(made, {sequence: expected[sequence] for sequence in made})
        self.assertLess(max(made), undisturbed["samples"])

    def test_what_is_not_finite_is_never_published(self):
        shutil.copytree(self.logs, self.folder / "sound")
        self.config = self.folder / "sound" / "shop.toml"
        self.spoiled_config = self.logs / "shop.toml"
        settings = {"checkpoints.every": 256, "checkpoints.interval": '"1 h"'}
        # Weights near one, as no small learning rate makes them, take such a number to infinity.
        def huge_number(features):
            features["item"]["quality"] = 1e300
        spoiled = self.spoil_impressions(huge_number)
        self.stops_at_a_number("logits", settings | {"training.dense.learning_rate": 0.3},
                               "the logit of tower ", spoiled)
        shutil.copytree(self.folder / "sound", self.logs, dirs_exist_ok=True)
        def huge_weights(features):
            features["user"]["brands"] = {"seldom": 1e300}
        spoiled = self.spoil_impressions(huge_weights)
        self.stops_at_a_number("rows", settings, "a row of table brand", spoiled)

    def test_tables_beyond_their_bounds(self):
        """It stops before it publishes more; with a higher bound it comes to the undisturbed end."""
        every = {"checkpoints.every": 256, "checkpoints.interval": '"1 h"'}
        for key, low, high in (("model.max_rows", 2000, 1_000_000),
                               ("model.max_memory", '"1 MiB"', '"1 GiB"')):
            name = key.split(".")[1]
            needle = f"more than {key} = "
            self.fails(name, 1, needle, "raise the bound", settings=every | {key: low})
            published = self.folder / name / "models" / "model" / "checkpoints"
            kept = lambda: sorted(path.name for path in published.iterdir())
            checkpoints = kept()
            self.assertGreater(int(checkpoints[-1]), 0)
            self.fails(name, 1, needle, settings=every | {key: low})
            if key == "model.max_rows":  # memory depends a little on how the rows came
                self.assertEqual(kept(), checkpoints)
            report = self.replay(self.config, name, every | {key: high})
            self.assert_same(report, self.expected)

    def test_a_closed_folder(self):
        """It tells the same again, but not for other logs, and no service goes on with it."""
        self.fails("undisturbed", 2, "closed", verb="run")
        other = sluice.generate(self.folder / "other", "--impressions", 6000, "--seed", 4).parent
        self.fails("undisturbed", 1, "changed", settings={"source.root": f'"{other}"'})
        self.assert_same(self.replay(self.config, "undisturbed"), self.expected)

    def test_a_folder_of_something_else_is_refused(self):
        self.fails("shop", 2, "shop", "other files")
        self.fails("data", 2, "--predictions", "nowhere",
                   arguments=("--predictions", self.folder / "nowhere" / "p.csv"))

    def test_run_follows_files_and_passes_quiet_partitions(self):
        """What is appended while it runs is read; sparse purchases hold nothing back for ever."""
        late = {}
        for path in sorted(self.logs.glob("*/*.jsonl")):
            lines = path.read_bytes().splitlines(keepends=True)
            half = len(lines) // 2
            path.write_bytes(b"".join(lines[:half]))
            late[path] = b"".join(lines[half:])
        data = self.folder / "live"
        settings = {"source.idle_after": '"2 s"', "checkpoints.every": 500}
        process = subprocess.Popen(sluice.command("run", self.config, data, settings),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        lines = lambda: (data / "digests.jsonl").read_bytes().count(b"\n") \
            if (data / "digests.jsonl").exists() else 0
        try:
            sluice.wait_until(lambda: lines() >= 4, 60, "samples of the first half")
            before = lines()
            for path, text in late.items():
                with path.open("ab") as file:
                    file.write(text)
            sluice.wait_until(lambda: lines() >= before + 2, 60, "samples of the second half")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        self.assertEqual(process.returncode, 0, errors[-2000:])

    def test_unreachable_broker(self):
        self.fails("data", 1, "127.0.0.1:1", settings={
            "source.type": '"kafka"', "source.brokers": '"127.0.0.1:1"'})

    def test_folder_in_use(self):
        words = sluice.command("run", self.config, self.folder / "data")
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            sluice.wait_until(lambda: (self.folder / "data" / "models").exists(), 30, "a start")
            self.fails("data", 1, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)
        self.assert_same(self.replay(self.config, "data"), self.expected)

    @unittest.skipUnless(os.geteuid() == 0, "mounting a small file system needs root")
    def test_full_disk(self):
        disk = self.folder / "disk"
        disk.mkdir()
        mounted = sluice.call(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk])
        if mounted.returncode != 0:
            self.skipTest("mount is not allowed here: " + mounted.stderr.strip())
        try:
            self.fails("disk/data", 1, "space")
            mounted = sluice.call(["mount", "-o", "remount,size=200m", disk])
            self.assertEqual(mounted.returncode, 0, mounted.stderr)
            self.assert_same(self.replay(self.config, "disk/data"), self.expected)
        finally:
            sluice.call(["umount", "-l", disk])

    def test_sigterm_and_on(self):
        words = sluice.command("run", self.config, self.folder / "data")
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sluice.wait_until(lambda: (self.folder / "data" / "models").exists(), 30, "a start")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)
        self.assert_same(self.replay(self.config, "data"), self.expected)
