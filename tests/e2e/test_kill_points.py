"""Every durable step of the binary: killed right before and right after it, nothing is lost.

The steps name themselves (docs/operating.md, "Fault drills"): an undisturbed run tells all of their
names, so that none can be forgotten.
"""

import collections
import concurrent.futures
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import sluice

SEED = 20
# Small enough to be run some hundred times, with every kind of step often: commits, checkpoints,
# snapshots, removals of both. Nothing depends on the clock.
SETTINGS = {
    "model.embedding_dim": 4, "model.hidden": "[8]", "training.batch_size": 64,
    "training.lane": 16, "store.commit_records": 250, "store.commit_interval": '"1 h"',
    "store.memtable_bytes": '"1 MiB"', "source.read_records": 100, "checkpoints.every": 200,
    "checkpoints.interval": '"1 h"', "snapshots.every": '"20 min"', "snapshots.keep": 2,
    # Some pass the gate, some do not.
    "snapshots.gate.min_positives": 1, "snapshots.gate.calibration_max": 3.05,
}
SHOP = ["--impressions", 1200, "--users", 100, "--items", 50, "--partitions", 2, "--span", "2h",
        "--click-window", "5 min", "--conversion-window", "1 h", "--seed", 5]
# What must be there, or the test has lost what it is about.
WANTED = {
    "data.create_folder", "store.open", "store.commit", "model.folder_sync", "identity.rename",
    "checkpoint.write", "checkpoint.sync", "checkpoint.rename", "checkpoint.folder_sync",
    "checkpoint.unpublish", "checkpoint.remove", "snapshot.write", "snapshot.sync",
    "snapshot.rename", "snapshot.unpublish", "latest.rename", "alias.rename", "digests.append", "digests.sync",
    "predictions.write", "predictions.sync", "scores.append", "scores.sync", "report.rename",
}
# Only of a start that goes on: what the one before left is cut back.
WANTED_AFTER_A_KILL = {"predictions.cut", "scores.cut", "predictions.append"}


def memory_folder():
    """A parent for the data folders: a kill needs no disk, and memory is ten times as fast."""
    memory = pathlib.Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK):
        if shutil.disk_usage(memory).free > 200 << 20:
            return memory
    return None


class Run:
    """One data folder, and the files beside it."""

    def __init__(self, case, name):
        self.case = case
        self.folder = case.folder / name
        (self.folder / "out").mkdir(parents=True)
        self.data = self.folder / "data"
        self.report = self.folder / "out" / "report.json"
        self.predictions = self.folder / "out" / "predictions.csv"
        self.steps = self.folder / "steps"

    def start(self, kill_at=None, at_end="close"):
        """Runs to its end or its kill; returns the finished process."""
        words = sluice.command("replay", self.case.config, self.data, SETTINGS, "--at-end", at_end,
                               "--threads", 1, "--report", self.report,
                               "--predictions", self.predictions)
        environment = {**os.environ, "SLUICE_STEPS_FILE": str(self.steps)}
        if kill_at is not None:
            environment["SLUICE_KILL_AT"] = kill_at
        return sluice.call(words, env=environment)

    def passings(self):
        """How often each step was passed by all starts so far."""
        return collections.Counter(self.steps.read_text().split()) if self.steps.exists() else \
            collections.Counter()

    def outcome(self):
        """All that a finished replay leaves for others, but what depends on the run."""
        report = json.loads(self.report.read_text())
        report.pop("throughput")
        model = next((self.data / "models").iterdir())
        files = {path.relative_to(self.data): path.read_bytes()
                 for path in sorted((model / "snapshots").rglob("*"))
                 if path.is_file() and path.name != "provenance.json"}
        return {"report": report, "predictions": self.predictions.read_bytes(),
                "digests.jsonl": (self.data / "digests.jsonl").read_bytes(),
                "scores": (model / "scores.bin").read_bytes(),
                "newest checkpoints": [
                    path.name for path in sorted((model / "checkpoints").iterdir())][-2:],
                "snapshots": files}


class KillPoints(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice-kill-", dir=memory_folder()))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.config = sluice.generate(cls.folder / "shop", *SHOP)
        sluice.add_clicks_and_purchases(cls.folder / "shop", clicks=6, purchases=12)
        cls.undisturbed = Run(cls, "undisturbed")
        done = cls.undisturbed.start()
        assert done.returncode == 0, done.stderr
        cls.expected = cls.undisturbed.outcome()
        cls.passings = cls.undisturbed.passings()

    def assert_same(self, run, what):
        outcome = run.outcome()
        for key, value in self.expected.items():
            self.assertEqual(outcome[key], value, f"{key}, {what}")

    def assert_killed(self, done, what):
        self.assertEqual(done.returncode, -signal.SIGKILL, f"{what}: {done.stderr[-2000:]}")

    def finish(self, run, what):
        done = run.start()
        self.assertEqual(done.returncode, 0, f"{what}: {done.stderr[-2000:]}")
        self.assert_same(run, what)
        unknown = [step for step in run.passings() if step.startswith("unknown")]
        self.assertEqual(unknown, [], f"steps without a name, {what}")

    def test_all_steps_have_names(self):
        steps = self.passings
        self.assertEqual([step for step in steps if step.startswith("unknown")], [])
        self.assertEqual(WANTED - set(steps), set())
        for step in ("store.commit", "checkpoint.rename", "snapshot.rename", "latest.rename",
                     "alias.rename"):
            self.assertGreaterEqual(steps[step], 3, step)
        self.assertGreater(self.expected["report"]["labels"]["clicked"], 100)
        self.assertGreater(self.expected["report"]["labels"]["converted"], 50)

    def kill_and_finish(self, point):
        """Killed there, started again; the folder of a run that was right is removed."""
        run = Run(self, point.replace(":", "-"))
        self.assert_killed(run.start(point), point)
        self.finish(run, point)
        steps = set(run.passings())
        shutil.rmtree(run.folder)
        return steps

    @sluice.slow
    def test_killed_before_and_after_every_step(self):
        points = []
        for step, count in sorted(self.passings.items()):
            for side, passing in itertools.product(("before", "after"),
                                                   sorted({1, (count + 1) // 2, count})):
                points.append(f"{step}:{side}:{passing}")
        seen = set()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for steps in pool.map(self.kill_and_finish, points):
                seen |= steps
        # Recovery has steps of its own.
        self.assertEqual(WANTED_AFTER_A_KILL - seen, set())
        print(f"{len(self.passings)} steps, {len(points)} kills, each followed by a start to the "
              "end", end=" ... ", flush=True)

    def test_killed_twenty_times_while_it_recovers(self):
        """Each start comes no further than its first steps; then one is left alone."""
        draw = random.Random(SEED)
        run = Run(self, "recovering")
        middle = f"scores.append:after:{self.passings['scores.append'] // 2}"
        self.assert_killed(run.start(middle), middle)
        # The steps of a recovery, as a copy of it shows.
        copy = Run(self, "copied")
        shutil.copytree(run.folder, copy.folder, dirs_exist_ok=True)
        copy.steps.unlink()
        self.finish(copy, "a copy")
        first = copy.steps.read_text().split()[:25]
        points = []
        for number, step in enumerate(first):
            passing = first[:number + 1].count(step)
            points += [f"{step}:before:{passing}", f"{step}:after:{passing}"]
        self.assertIn("store.open:after:1", points)
        self.assertIn("scores.cut:before:1", points)
        # What was cut back is not cut again by the next start: those places come first, in order.
        once = [point for point in points if ".cut:before" in point]
        again = [point for point in points if ".cut:" not in point]
        killed = 0
        for point in once + draw.sample(again, 20 - len(once)):
            self.assert_killed(run.start(point), f"{point} after {killed} kills, seed {SEED}")
            killed += 1
        self.assertEqual(killed, 20)
        self.finish(run, f"after 20 kills while it recovered, seed {SEED}")

    def test_killed_while_it_holds_then_closed(self):
        for point in ("store.commit:before:2", "store.commit:after:3", "checkpoint.write:after:2",
                      "checkpoint.rename:before:2", "digests.append:after:3"):
            with self.subTest(point):
                run = Run(self, "hold-" + point.replace(":", "-"))
                self.assert_killed(run.start(point, at_end="hold"), point)
                done = run.start(at_end="hold")
                self.assertEqual(done.returncode, 0, done.stderr)
                done = run.start()
                self.assertEqual(done.returncode, 0, done.stderr)
                outcome = run.outcome()
                for key in ("report", "predictions", "scores", "snapshots"):
                    self.assertEqual(outcome[key], self.expected[key], (key, point))
                # The graceful end of the hold made a checkpoint, and a line, of its own.
                self.assertLessEqual(set(self.expected["digests.jsonl"].splitlines()),
                                     set(outcome["digests.jsonl"].splitlines()))

    def test_words_that_are_no_point_are_refused(self):
        run = Run(self, "refused")
        for point in ("checkpoint.rename", "checkpoint.rename:after", "checkpoint.rename:during:1",
                      "checkpoint.rename:after:0", "checkpoint.rename:after:x", ":before:1", ""):
            done = run.start(point)
            self.assertEqual(done.returncode, 2, point)
            self.assertIn("SLUICE_KILL_AT", done.stderr)
        self.assertFalse(run.data.exists())


@sluice.needs_expedia
class RestartTimes(sluice.Case):
    KILLS = 20
    LIMIT_S = 5.0

    @sluice.slow
    def test_first_new_sample_within_five_seconds(self):
        """scores.bin has 16 bytes for each sample learned, written as it is learned, and is cut back
        to the checkpoint at a start. The first new sample is there when it is longer than any start
        before has made it: the time from the start of the process to that is measured, with all
        that is learned again in between."""
        expected = self.replay(sluice.EXPEDIA, "undisturbed")
        data = self.folder / "killed"
        words = sluice.command("replay", sluice.EXPEDIA, data,
                               {"checkpoints.every": 2000, "checkpoints.interval": '"1 h"',
                                "store.commit_records": 500, "store.max_learner_lag": 1000})
        scores = data / "models" / "model" / "scores.bin"
        total = expected["samples"]
        longest, times = 0, []
        for number in range(self.KILLS):
            begin = time.monotonic()
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            size = lambda: scores.stat().st_size if scores.exists() else 0
            try:
                sluice.wait_until(lambda: size() > longest or process.poll() is not None, 60,
                                  "a new sample")
                times.append(time.monotonic() - begin)
                target = 16 * total * (number + 1) // (self.KILLS + 1)
                sluice.wait_until(lambda: size() >= target or process.poll() is not None, 60,
                                  "the next kill's place")
                self.assertIsNone(process.poll(), f"it ended before kill {number}")
            finally:
                process.kill()
                process.wait()
            longest = max(longest, size())
        self.assert_same(self.replay(sluice.EXPEDIA, "killed",
                                     {"checkpoints.every": 2000}), expected)
        print(f"{len(times)} starts, first new sample after {min(times):.2f} to "
              f"{max(times):.2f} s", end=" ... ", flush=True)
        # Of one start alone a busy machine decides.
        self.assertLess(sorted(times)[len(times) // 2], self.LIMIT_S)


if __name__ == "__main__":
    unittest.main()
