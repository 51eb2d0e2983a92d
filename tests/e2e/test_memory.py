"""Resident memory stays within what docs/operating.md, "Memory", adds up from the config."""

import json
import random
import signal
import subprocess
import time

import sluice

SEED = 23
MIB = 1 << 20
BEGIN = 1704067200000
PARTITIONS = 2
CONFIG = """\
[source]
root = "."
max_queued_bytes = "12 MiB"
[streams]
max_out_of_orderness = "1 s"
[join]
click_window = "10 min"
conversion_window = "1 h"
[features]
text = { path = "text", type = "id" }
user = { path = "user", type = "id" }
price = { path = "price", type = "number", buckets = "log:4" }
[model]
hidden = [512, 256]
[training]
batch_size = 256
threads = 1
[checkpoints]
every = 20000
[store]
memtable_bytes = "4 MiB"
block_cache_bytes = "8 MiB"
max_learner_lag = 5000
"""
RECORD_BYTES = 6000
TEXT_BYTES = 1000


def budget_mib(open_impressions, clicked):
    """The table of docs/operating.md for CONFIG; its model has less than 10,000 rows."""
    queued, memtable, cache, dim, rows = 12, 4, 8, 18, 10000
    parameters = 2 * (3 * dim * 512 + 512 * 256 + 256)
    model = 12 * parameters + rows * (12 * dim + 90)
    return (70
            + 2 * queued + 3 * PARTITIONS * 0.5
            + 6 * memtable + cache
            + 10 * PARTITIONS + (30 * open_impressions + 1000 * clicked) / MIB
            + 4 * model / MIB
            + 10000 * (400 + TEXT_BYTES) / MIB)


@sluice.not_sanitized
class Memory(sluice.Case):
    def setUp(self):
        super().setUp()
        self.config = self.folder / "config.toml"
        self.config.write_text(CONFIG)
        for stream in ("impressions", "clicks", "purchases"):
            (self.folder / stream).mkdir()
        draw = random.Random(SEED)
        letters = "abcdefghijklmnopqrstuvwxyz0123456789"
        self.texts = ["".join(draw.choices(letters, k=TEXT_BYTES)) for _ in range(50)]
        self.pad = "".join(draw.choices(letters, k=RECORD_BYTES))

    def write(self, partition, count, step_ms, first=0):
        """`count` impressions, step_ms apart; every 20th is clicked. Gives the bytes written."""
        path = lambda stream: self.folder / stream / f"{partition}.jsonl"
        with path("impressions").open("a") as impressions, path("clicks").open("a") as clicks, \
                path("purchases").open("a") as purchases:
            for number in range(first, first + count):
                ts = BEGIN + number * step_ms
                head = f'{{"ts":{ts},"impression_id":"{partition}-{number}","user":{number % 5000},' \
                       f'"price":{number % 97},"text":"{self.texts[number % 50]}","pad":"'
                impressions.write(f'{head}{self.pad[:RECORD_BYTES - len(head) - 3]}"}}\n')
                if number % 20 == 0:
                    line = f'{{"ts":{ts + 5},"impression_id":"{partition}-{number}"}}\n'
                    clicks.write(line)
                    if number % 200 == 0:
                        purchases.write(line)
        return count * RECORD_BYTES

    def assert_within(self, peak, budget):
        self.assertLess(peak / MIB, budget)
        # A budget that is far too large would show nothing.
        self.assertGreater(peak / MIB, budget / 4)

    @sluice.slow
    def test_a_learner_slower_than_its_logs(self):
        """One log has ten times the events of the other in the same time of the shop."""
        fast, slow = 110000, 11000
        written = self.write(0, fast, 30) + self.write(1, slow, 300)
        budget = budget_mib(open_impressions=22000, clicked=6600)
        self.assertGreater(written / MIB, 3 * budget)
        report = self.folder / "report.json"
        code, errors, peak = sluice.call_and_measure(sluice.command(
            "replay", self.config, self.folder / "data", None, "--report", report))
        self.assertEqual(code, 0, errors)
        report = json.loads(report.read_text())
        self.assertEqual(report["labels"]["impressions"], fast + slow)
        self.assertLess(report["throughput"]["samples_per_s"], 100000, "the learner is not slow")
        self.assert_within(peak, budget)

    @sluice.slow
    def test_one_partition_far_ahead(self):
        """What runs ahead is not read further; when the other log goes on, it all is."""
        count = 40000
        self.write(0, 10, 30)
        written = self.write(1, count, 30)
        budget = budget_mib(open_impressions=40000, clicked=4000)
        settings = {"source.idle_after": "never", "model.hidden": "[8]"}
        self.assertGreater(written / MIB, budget / 2)
        errors_path = self.folder / "stderr"
        report = self.folder / "report.json"
        with errors_path.open("w") as errors:
            process = subprocess.Popen(
                sluice.command("run", self.config, self.folder / "data", settings,
                               "--report", report), stdout=subprocess.DEVNULL, stderr=errors)
        try:
            time.sleep(4)
            ahead = sluice.peak_memory(process.pid)
            self.assertIsNone(process.poll(), errors_path.read_text())
            self.assertEqual(self.trained(), 0)
            self.write(0, count, 30, first=10)
            for stream in ("clicks", "purchases"):  # their event time must go on too
                for partition in range(PARTITIONS):
                    with (self.folder / stream / f"{partition}.jsonl").open("a") as file:
                        file.write(f'{{"ts":{BEGIN + 30 * count},"impression_id":"none"}}\n')
            sluice.wait_until(lambda: self.trained() >= 20000, 60, "samples")
            peak = sluice.peak_memory(process.pid)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
            process.wait()
        self.assertEqual(process.returncode, 0, errors_path.read_text())
        # Of 150 MiB in the log it holds what source.max_queued_bytes allows.
        self.assertLess(ahead / MIB, 70 + 2 * 12 + 10 * PARTITIONS)
        self.assert_within(peak, budget)

    @sluice.needs_kafka
    @sluice.slow
    def test_a_learner_slower_than_the_broker(self):
        """The queues of its connection hold no more than source.max_queued_bytes either."""
        written = self.write(0, 60000, 30) + self.write(1, 6000, 300)
        budget = budget_mib(open_impressions=22000, clicked=3600)
        self.assertGreater(written / MIB, 1.8 * budget)
        topics = sluice.load_topics(self.folder, self.folder.name + "-")
        code, errors, peak = sluice.call_and_measure(sluice.command(
            "replay", self.config, self.folder / "data",
            {**topics, "source.type": '"kafka"', "source.brokers": f'"{sluice.KAFKA}"'}))
        self.assertEqual(code, 0, errors)
        self.assert_within(peak, budget)

    def trained(self):
        path = self.folder / "data" / "digests.jsonl"
        text = path.read_text() if path.exists() else ""
        whole = text[:text.rfind("\n") + 1].splitlines()
        return json.loads(whole[-1])["sequence"] if whole else 0
