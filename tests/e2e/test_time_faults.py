"""Wrong times in records, clocks that step, processes that stand still, records that come too late."""

import glob
import json
import os
import random
import signal
import subprocess
import time
import unittest

import sluice

SEED = 22
TIME = 1704150000000  # within the shop's two days
YEAR_2100 = 4102444800000
HOUR = 3600000
FAKETIME = sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))

# Each is nonsense as milliseconds since 1970.
NONSENSE = {
    "zero": 0,
    "seconds": TIME // 1000,
    "microseconds": TIME * 1000,
    "nanoseconds": TIME * 1000000,
    "negative": -TIME,
    "one before streams.not_before": 10**12 - 1,
    "one after the year 9999": 253402300800000,
    "the smallest integer": -2**63,
    "the largest integer": 2**63 - 1,
}


def record(stream, ts, extra=b""):
    assert stream in ("impressions", "clicks", "purchases")
    return b'{"ts":%d,"impression_id":"bad-%s"%s}\n' % (ts, stream.encode(), extra)


def time_of(line):
    return json.loads(line)["ts"]


class Shop(sluice.Case):
    options = ("--impressions", 6000, "--seed", 3)

    def setUp(self):
        super().setUp()
        self.logs = self.folder / "shop"
        self.config = sluice.generate(self.logs, *self.options)
        self.texts = {path: path.read_bytes() for path in sorted(self.logs.glob("*/*.jsonl"))}

    def restore(self):
        for path, text in self.texts.items():
            path.write_bytes(text)

    def insert(self, make, draw, count=2):
        """Lines make(stream, the line before) into each log that has any; gives how many."""
        inserted = 0
        for path, text in self.texts.items():
            lines = text.splitlines(keepends=True)
            for _ in range(count if lines else 0):
                place = draw.randrange(len(lines))
                lines.insert(place + 1, make(path.parent.name, lines[place]))
                inserted += 1
            path.write_bytes(b"".join(lines))
        self.assertGreater(inserted, 2 * len(self.texts) // 3)
        return inserted

    def cut(self):
        """Leaves in the logs what lies before TIME, by path gives what follows it."""
        later = {}
        for path, text in self.texts.items():
            lines = text.splitlines(keepends=True)
            early = [line for line in lines if time_of(line) < TIME]
            later[path] = b"".join(line for line in lines if time_of(line) >= TIME)
            path.write_bytes(b"".join(early))
        return later

    def assert_same_but(self, report, expected, reason, count):
        for key in ("samples_digest", "model_digest", "labels", "used", "metrics"):
            self.assertEqual(report[key], expected[key], key)
        for other, refused in expected["refused"].items():
            self.assertEqual(report["refused"][other], refused + (count if other == reason else 0),
                             other)
        self.assertEqual(report["dead_letters"]["kept"], expected["dead_letters"]["kept"] + count)
        self.assert_adds_up(report)


class WrongTimes(Shop):
    def test_times_in_other_units_are_refused_and_change_nothing(self):
        expected = self.replay(self.config, "undisturbed")
        draw = random.Random(SEED)
        for number, (kind, ts) in enumerate(NONSENSE.items()):
            with self.subTest(kind, seed=SEED):
                self.restore()
                count = self.insert(lambda stream, _, ts=ts: record(stream, ts), draw)
                report = self.replay(self.config, f"nonsense-{number}")
                self.assert_same_but(report, expected, "malformed", count)

    def with_log_times(self):
        """The same logs; each record says when its log took it: at the latest time so far."""
        for path, text in self.texts.items():
            latest, lines = 0, []
            for line in text.splitlines():
                latest = max(latest, time_of(line))
                lines.append(line[:-1] + b',"log":%d}\n' % latest)
            self.texts[path] = b"".join(lines)
        self.restore()
        return {"streams.log_time": "log"}

    def test_with_a_log_time_one_bad_clock_makes_nothing_late(self):
        settings = self.with_log_times()
        expected = self.replay(self.config, "undisturbed", settings)
        self.assertEqual(expected["refused"]["late"], 0)
        draw = random.Random(SEED)
        cases = {
            "the year 2100": lambda log: YEAR_2100,
            "a millisecond more than max_ahead": lambda log: log + HOUR + 1,
            "a clock a day ahead": lambda log: log + 24 * HOUR,
        }
        for number, (kind, ahead) in enumerate(cases.items()):
            with self.subTest(kind, seed=SEED):
                def make(stream, line, ahead=ahead):
                    log = json.loads(line)["log"]
                    return record(stream, ahead(log), b',"log":%d' % log)
                self.restore()
                count = self.insert(make, draw)
                report = self.replay(self.config, f"future-{number}", settings)
                self.assert_same_but(report, expected, "future", count)

    def test_without_a_log_time_a_bad_clock_makes_its_own_log_late(self):
        """As documented: all that follows in that one log is late, and nothing elsewhere."""
        path = self.logs / "clicks" / "00001.jsonl"
        lines = self.texts[path].splitlines(keepends=True)
        half = len(lines) // 2
        path.write_bytes(b"".join([*lines[:half], record("clicks", YEAR_2100), *lines[half:]]))
        report = self.replay(self.config, "ahead")
        self.assertGreater(len(lines) - half, 10)
        self.assertEqual(report["refused_by_stream"]["clicks"]["late"], len(lines) - half)
        self.assertEqual(report["refused"]["late"], len(lines) - half)
        self.assert_adds_up(report)
        path.write_bytes(b"".join(lines[:half]))
        without = self.replay(self.config, "without")
        for key in ("samples_digest", "model_digest", "labels"):
            self.assertEqual(report[key], without[key], key)


class Service:
    """`sluice run` as a child; stopped with SIGTERM at the end of the block."""

    def __init__(self, case, config, name, settings, environment=None):
        self.case = case
        self.data = case.folder / name
        self.report_path = case.folder / f"{name}.json"
        self.words = sluice.command("run", config, self.data, settings, "--report",
                                    self.report_path)
        self.environment = {**os.environ, **(environment or {})}
        self.errors_path = case.folder / f"{name}.stderr"

    def __enter__(self):
        with self.errors_path.open("w") as errors:
            self.process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, stderr=errors,
                                            env=self.environment)
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
        if kind is None:
            self.case.assertEqual(self.process.returncode, 0, self.errors_path.read_text()[-2000:])

    def report(self):
        return json.loads(self.report_path.read_text())

    def wait(self, condition, what):
        def met():
            assert self.process.poll() is None, self.errors_path.read_text()[-2000:]
            return condition()
        sluice.wait_until(met, 60, what)

    def lines(self):
        path = self.data / "digests.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_until_calm(self):
        """Nothing new for a while: all is read and learned, and every log was declared quiet."""
        seen, since = -1, time.monotonic()

        def is_calm():
            nonlocal seen, since
            if self.lines() != seen:
                seen, since = self.lines(), time.monotonic()
            return time.monotonic() - since > 5
        self.wait(is_calm, "calm")

    def common(self, expected):
        path = self.data / "digests.jsonl"
        if not path.exists() or not path.read_text().endswith("\n"):
            return []
        return sorted(set(sluice.digests(self.data)) & set(expected))

    def assert_equal_digests(self, expected):
        found = sluice.digests(self.data)
        for sequence in self.common(expected):
            self.case.assertEqual(found[sequence], expected[sequence], sequence)


class Freshness(sluice.Case):
    def test_a_service_tells_how_far_its_model_is_behind(self):
        """Of events that are hours old: by the time between their labels and the service's run. A
        replay's report says nothing of it."""
        span, window, slack = HOUR, 60_000, 20_000  # slack: tick and disorder
        began = int(time.time() * 1000)
        start = began - 3 * HOUR
        config = sluice.generate(
            self.folder / "shop", "--impressions", 10000, "--span", f"{span} ms", "--start", start,
            "--click-window", f"{window} ms", "--conversion-window", f"{window} ms")
        settings = {**sluice.MANY_CHECKPOINTS, "source.idle_after": '"1 s"'}
        with Service(self, config, "live", settings) as service:
            service.wait(lambda: service.lines() >= 3, "samples")
        longest_possible = int(time.time() * 1000) - start
        report = service.report()
        self.assertGreater(report["trained"], 2000)
        fresh = report["throughput"]["freshness_ms"]
        self.assertEqual(set(fresh), {"median", "p99", "longest"})
        self.assertGreater(fresh["median"], began - (start + span + 2 * window + slack))
        self.assertLessEqual(fresh["median"], fresh["p99"])
        self.assertLessEqual(fresh["p99"], fresh["longest"])
        self.assertLess(fresh["longest"], longest_possible * 33 // 32)
        # The first labels are the oldest: what is shown is no single sample's.
        self.assertGreater(fresh["longest"], began - start - span // 2)
        self.assertNotIn("freshness_ms", self.replay(config, "again")["throughput"])


class StandingStill(Shop):
    """Suspended (as by a debugger, or with its whole machine) and woken up again."""

    options = ("--impressions", 30000, "--seed", 11, "--partitions", 1)
    suspended_s = 20
    settings = {"checkpoints.every": 500, "checkpoints.interval": '"1 h"'}

    def undisturbed(self):
        self.replay(self.config, "undisturbed", self.settings)
        return sluice.digests(self.folder / "undisturbed")

    @sluice.slow
    def test_suspended_while_the_files_grow(self):
        expected = self.undisturbed()
        later = self.cut()  # what follows is written meanwhile
        with Service(self, self.config, "live",
                     {**self.settings, "source.idle_after": "never"}) as service:
            service.wait(lambda: len(service.common(expected)) >= 4, "digests of the first part")
            before = len(service.common(expected))
            service.process.send_signal(signal.SIGSTOP)
            for path, text in later.items():
                with path.open("ab") as file:
                    file.write(text)
            time.sleep(self.suspended_s)
            service.process.send_signal(signal.SIGCONT)
            service.wait(lambda: len(service.common(expected)) >= before + 10, "the rest")
        service.assert_equal_digests(expected)
        for reason in ("late", "late_after_quiet", "malformed"):
            self.assertEqual(service.report()["refused"][reason], 0, reason)

    @sluice.needs_kafka
    @sluice.slow
    def test_suspended_while_it_reads_the_broker(self):
        expected = self.undisturbed()
        topics = sluice.load_topics(self.logs, self.folder.name + "-")
        settings = {**self.settings, **topics, "source.type": '"kafka"',
                    "source.brokers": f'"{sluice.KAFKA}"', "source.idle_after": '"1 s"',
                    "store.max_learner_lag": 600, "source.read_records": 50}
        with Service(self, self.config, "live", settings) as service:
            service.wait(lambda: len(service.common(expected)) >= 3, "first digests")
            service.process.send_signal(signal.SIGSTOP)
            seen = len(service.common(expected))
            self.assertLess(seen, len(expected) - 10, "it was suspended too late")
            time.sleep(self.suspended_s)
            self.assertEqual(len(service.common(expected)), seen)
            service.process.send_signal(signal.SIGCONT)
            service.wait(lambda: len(service.common(expected)) >= len(expected) - 10, "the rest")
        service.assert_equal_digests(expected)
        report = service.report()
        self.assertTrue(report["reproducible"])
        self.assertEqual(report["refused"]["late_after_quiet"], 0)


class OldTopics(Shop):
    """A service on topics whose events are years old and whose purchases are rare."""

    options = ("--impressions", 20000, "--seed", 5, "--partitions", 6)

    @sluice.needs_kafka
    @sluice.slow
    def test_nothing_is_late_and_quiet_partitions_hold_nothing_back(self):
        purchases = [text for path, text in self.texts.items() if path.parent.name == "purchases"]
        self.assertIn(b"", purchases, "some partition has no purchase at all")
        settings = {"checkpoints.every": 500, "checkpoints.interval": '"1 h"'}
        whole = self.replay(self.config, "undisturbed", settings)
        expected = sluice.digests(self.folder / "undisturbed")
        topics = sluice.load_topics(self.logs, self.folder.name + "-")
        settings |= {**topics, "source.type": '"kafka"', "source.idle_after": '"500 ms"',
                     "source.brokers": f'"{sluice.KAFKA}"'}
        with Service(self, self.config, "live", settings) as service:
            service.wait(lambda: len(service.common(expected)) >= len(expected) // 2, "half of it")
        service.assert_equal_digests(expected)
        report = service.report()
        self.assertEqual(report["refused"]["late"], 0)
        self.assertEqual(report["refused"]["late_after_quiet"], 0)
        self.assertTrue(report["reproducible"])
        self.assertEqual(report["events"], whole["events"])


class TooLate(Shop):
    """Records that reach their log after it was declared quiet and passed by."""

    options = ("--impressions", 12000, "--seed", 3, "--partitions", 1)
    settings = {"checkpoints.every": 500, "checkpoints.interval": '"1 h"',
                "snapshots.every": '"1 h"', "snapshots.keep": 1000, "source.idle_after": '"300 ms"'}

    def snapshots(self, data):
        """sequence -> whether it says that it can be reproduced"""
        found = {}
        for path in data.glob("models/*/snapshots/[0-9]*/manifest.json"):
            manifest = json.loads(path.read_text())
            found[manifest["sequence"]] = manifest["reproducible"]
        return dict(sorted(found.items()))

    @sluice.slow
    def test_late_after_quiet_is_refused_and_marked_from_there_on(self):
        self.replay(self.config, "undisturbed", {
            key: value for key, value in self.settings.items() if "idle" not in key})
        expected = sluice.digests(self.folder / "undisturbed")
        later = self.cut()
        purchases = self.logs / "purchases" / "00000.jsonl"
        early_purchases = purchases.read_bytes().splitlines()
        # Not late by its own log, and long before what the other logs have passed by then.
        too_late = max(map(time_of, early_purchases), default=TIME - 8 * HOUR) + 1
        self.assertLess(too_late, TIME - HOUR, "this shop has a purchase just there: other seed")
        with Service(self, self.config, "live", self.settings) as service:
            service.wait(lambda: len(self.snapshots(service.data)) >= 3, "snapshots")
            service.wait_until_calm()
            lines = service.lines()
            before = self.snapshots(service.data)
            with purchases.open("ab") as file:
                file.write(record("purchases", too_late))
            time.sleep(1)
            self.assertEqual(service.lines(), lines)
            # Only impressions go on, and none that event time may have passed by meanwhile.
            impressions = self.logs / "impressions" / "00000.jsonl"
            with impressions.open("ab") as file:
                file.writelines(line for line in later[impressions].splitlines(keepends=True)
                                if time_of(line) > TIME + 300000)
            service.wait(lambda: len(self.snapshots(service.data)) >= len(before) + 3, "more")
        report = service.report()
        self.assertEqual(report["refused"]["late_after_quiet"], 1)
        self.assertFalse(report["reproducible"])
        after = self.snapshots(service.data)
        self.assertEqual(set(before.values()), {True})
        self.assertEqual({after[sequence] for sequence in before}, {True})
        self.assertEqual({said for sequence, said in after.items() if sequence not in before},
                         {False})
        # What was learned before is what a replay learns.
        found = sluice.digests(service.data)
        for sequence in before:
            if sequence in expected:
                self.assertEqual(found[sequence], expected[sequence], sequence)
        self.assertGreaterEqual(len(set(before) & set(expected)), 1)
        self.assert_told(service.data, max(before), max(after))

    def assert_told(self, data, good, marked):
        """`snapshot show` and `verify` say it, and a marked one is whole all the same."""
        for sequence, said in ((good, True), (marked, False)):
            done = sluice.call([sluice.BINARY, "snapshot", "show", data, sequence])
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("reproducible", done.stdout)
            done = sluice.call([sluice.BINARY, "snapshot", "show", data, sequence,
                                "--json"])
            self.assertEqual(json.loads(done.stdout)["reproducible"], said)
            done = sluice.call([sluice.BINARY, "snapshot", "verify", data, sequence])
            self.assertEqual(done.returncode, 0, done.stderr)


@sluice.not_sanitized
@unittest.skipUnless(FAKETIME, "libfaketime is not installed (package faketime)")
class SteppedClock(Shop):
    """The machine's clock is set, by an hour, while the service waits for more."""

    options = ("--impressions", 12000, "--seed", 3, "--partitions", 1)
    settings = {"checkpoints.every": 500, "checkpoints.interval": '"1 h"',
                "snapshots.every": '"1 h"', "snapshots.keep": 1000,
                "source.idle_after": '"300 ms"', "source.max_delay": '"30 min"'}

    def run_stepped(self, name, step_s):
        """At first the clock stands where the logs end; then it steps and the logs go on."""
        later = self.cut()
        offset_s = TIME // 1000 - int(time.time()) + 1
        clock = self.folder / f"{name}.clock"
        clock.write_text(f"{offset_s:+d}s\n")
        environment = {"LD_PRELOAD": FAKETIME[0], "FAKETIME_TIMESTAMP_FILE": str(clock),
                       "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                       "DONT_FAKE_MONOTONIC": "1", "ASAN_OPTIONS": "verify_asan_link_order=0"}
        with Service(self, self.config, name, self.settings, environment) as service:
            service.wait(lambda: len(service.common(self.expected)) >= 3, "the first part")
            service.wait_until_calm()
            clock.write_text(f"{offset_s + step_s:+d}s\n")
            time.sleep(1.5)
            before = service.lines()
            for path, text in later.items():
                with path.open("ab") as file:
                    file.write(text)
            service.wait_until_calm()  # all of it is read, and waits for the clock
            clock.write_text(f"{offset_s + 30 * 24 * 3600:+d}s\n")
            service.wait(lambda: service.lines() >= before + 6, "the rest")
        self.restore()
        return service

    @sluice.slow
    def test_by_an_hour_back_and_forth(self):
        self.replay(self.config, "undisturbed", {
            key: value for key, value in self.settings.items() if not key.startswith("source")})
        self.expected = sluice.digests(self.folder / "undisturbed")
        back = self.run_stepped("back", -3600)
        back.assert_equal_digests(self.expected)
        self.assertGreaterEqual(len(back.common(self.expected)), 9)
        self.assertEqual(back.report()["refused"]["late_after_quiet"], 0)
        self.assertTrue(back.report()["reproducible"])
        provenance = next(back.data.glob("models/*/snapshots/[0-9]*/provenance.json"))
        self.assertEqual(json.loads(provenance.read_text())["published"][:4], "2024",
                         "the clock was not set")
        # Forward: the logs seem to be an hour behind, and what they had is passed by. It is told.
        forth = self.run_stepped("forth", 3600)
        report = forth.report()
        self.assertEqual(report["reproducible"], report["refused"]["late_after_quiet"] == 0)
        marked = [json.loads(path.read_text())["reproducible"] for path in
                  sorted(forth.data.glob("models/*/snapshots/[0-9]*/manifest.json"))]
        self.assertEqual(marked, sorted(marked, reverse=True))  # true ones, then false ones
        if report["reproducible"]:
            forth.assert_equal_digests(self.expected)
        else:
            self.assertFalse(marked[-1])
