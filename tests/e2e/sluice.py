"""What the end-to-end tests share: the binary, data folders, logs, and how to kill it."""

import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD", ROOT / "build" / "release"))
BINARY = BUILD / "sluice"
LOADER = BUILD / "topic_loader"
KAFKA = os.environ.get("SLUICE_KAFKA")
QUICK = bool(os.environ.get("SLUICE_QUICK"))
SHARED = ROOT.parent / "shared"
EXPEDIA = SHARED / "configs" / "expedia.toml"
TIMEOUT_S = 300  # of one call of the binary
# Every e2e run writes checkpoints often enough that digests.jsonl has something to compare.
MANY_CHECKPOINTS = {"checkpoints.every": 1000, "checkpoints.interval": '"1 h"'}

needs_expedia = unittest.skipUnless(EXPEDIA.exists(), f"{EXPEDIA} is not here")
needs_kafka = unittest.skipUnless(KAFKA, "SLUICE_KAFKA names no broker (./dev test starts one)")


def is_sanitized():
    if not BINARY.exists():
        return False
    with BINARY.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        return any(binary.find(name) >= 0 for name in (b"__asan_init", b"__tsan_init"))


# What a sanitizer needs of memory is not Sluice's, and other libraries cannot be put before its own.
not_sanitized = unittest.skipIf(is_sanitized(), "not with a sanitizer")
slow = unittest.skipIf(QUICK, "slow; ./dev test without --quick runs it")


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        parent = BUILD / "e2e"
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=self._testMethodName + "-", dir=parent))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def replay(self, config, name, settings=None, *arguments, verb="replay", expect=0):
        """Runs to the end; returns the report, or the finished process when it should fail."""
        data = self.folder / name
        report = self.folder / f"{name}.json"
        done = call(command(verb, config, data, settings, "--report", report, *arguments))
        self.assertEqual(done.returncode, expect, done.stderr[-2000:])
        return json.loads(report.read_text()) if expect == 0 else done

    def assert_same(self, report, other):
        for key in ("samples_digest", "model_digest", "events", "used", "refused", "labels",
                    "samples", "trained", "metrics"):
            self.assertEqual(report[key], other[key], key)

    def assert_adds_up(self, report):
        for stream, read in report["events"].items():
            refused = sum(report.get("refused_by_stream", {}).get(stream, {}).values())
            self.assertEqual(read, report["used"][stream] + refused, stream)


def command(verb, config, data, settings=None, *arguments):
    words = [BINARY, verb, config, "--data-dir", data, *arguments]
    for key, value in (settings or {}).items():
        words += ["--set", f"{key}={value}"]
    return [str(word) for word in words]


def call(words, **options):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False, **options)


def call_and_measure(words):
    """Runs to the end; returns exit code, stderr and the most resident memory it had, in bytes.

    Polled, as what the system says of ended children counts what this process had at the fork.
    """
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    peak = 0
    end = time.monotonic() + TIMEOUT_S
    try:
        while process.poll() is None:
            assert time.monotonic() < end, f"not within {TIMEOUT_S} s: {words}"
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.01)
        return process.returncode, process.stderr.read(), peak
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def peak_memory(pid):
    """The most resident memory that a running process has had, in bytes; 0 when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peaks[0]) * 1024 if peaks else 0


def generate(out, *options):
    done = call([BINARY, "generate", "--out", out, *options])
    assert done.returncode == 0, done.stderr
    return out / "shop.toml"


def digests(data):
    """sequence -> (samples digest, model digest), as digests.jsonl says."""
    lines = (data / "digests.jsonl").read_text().splitlines()
    found = {}
    for line in lines:
        entry = json.loads(line)
        pair = (entry["samples_digest"], entry["model_digest"])
        assert found.setdefault(entry["sequence"], pair) == pair, line
    return found


def run_and_kill(words, delay_s):
    """Starts it and kills it (SIGKILL) after delay_s; False where it had ended before by itself."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        process.wait(delay_s)
        errors = process.stderr.read()
        assert process.returncode == 0, errors
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(TIMEOUT_S)
        assert process.returncode == -signal.SIGKILL
        return True
    finally:
        process.stderr.close()


def kill_many_times(words, data, kills, seed):
    """Kills it `kills` times; each start goes on where the last one was killed.

    Two of three kills fall soon after a new line of digests.jsonl, so that they are spread over the
    whole replay; every third one falls into the start, whatever it is doing then. Where a busy
    machine lets it come to its end before them, the rest is made in a new folder.
    """
    draw = random.Random(seed)
    lines = data / "digests.jsonl"
    count = lambda: lines.read_bytes().count(b"\n") if lines.exists() else 0
    for number in range(kills):
        before = count()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if number % 3 == 2:
                time.sleep(draw.uniform(0.0, 0.2))
            else:
                wait_until(lambda: count() > before or process.poll() is not None, 60, "progress")
                time.sleep(draw.uniform(0.0, 0.02))
            has_ended = process.poll() is not None
        finally:
            process.kill()
            process.wait(TIMEOUT_S)
        if has_ended:
            assert process.returncode == 0 and number > kills // 2, f"kill {number}, seed {seed}"
            shutil.rmtree(data)


def add_clicks_and_purchases(logs, clicks, purchases):
    """To the logs of a shop so small that it sells next to nothing: a click for every so-many-th
    impression, and a purchase."""
    for path in sorted((logs / "impressions").iterdir()):
        more = {"clicks": [], "purchases": []}
        for number, line in enumerate(path.read_text().splitlines()):
            shown = json.loads(line)
            for stream, every, delay_ms in (("clicks", clicks, 20_000),
                                            ("purchases", purchases, 1_000_000)):
                if number % every == 0:
                    more[stream].append({"ts": shown["ts"] + delay_ms + number % 7 * 10_000,
                                         "event_id": f"{stream}-{shown['impression_id']}",
                                         "impression_id": shown["impression_id"]})
        for stream, events in more.items():
            log = logs / stream / path.name
            events += [json.loads(line) for line in log.read_text().splitlines()]
            events.sort(key=lambda event: event["ts"])
            log.write_text("".join(json.dumps(event) + "\n" for event in events))


def load_topics(root, prefix):
    """Puts the logs under root onto topics of the broker; returns the topics by stream."""
    topics = ["impressions", "clicks", "purchases"]
    if (pathlib.Path(root) / "actions").exists():
        topics.append("actions")
    done = call([LOADER, "--brokers", KAFKA, "--root", root, "--topics", ",".join(topics),
                 "--prefix", prefix])
    assert done.returncode == 0, done.stderr
    return {f"streams.{topic}.topic": f'"{prefix}{topic}"' for topic in topics}


def wait_until(condition, timeout_s, what):
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.002)
