"""The programs that the bench compares: started, asked for slices (bench/serve.h), watched.

A slice knows how much of a core others took while it ran: PyTorch on two threads falls to a
fiftieth of its rate when somebody else takes a core, so a figure means nothing without it.
"""

import json
import os
import subprocess
import tempfile
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 900
SLICE_TIMEOUT_S = 600  # the first one of a batch size may compile
DISTURBED = 0.10       # of a core, by others: such a slice is repeated
NOT_QUIET = 0.05       # of a core, by others or stolen, over all slices
REPEATS = 2


class Failed(Exception):
    """An engine that could not be started or stopped answering; says why."""


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return 0


def cores_for(threads):
    """One thread gets the last core, where a machine has least else to do."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[-1:] if threads == 1 else cores[:threads])


def busy_seconds():
    """(of all processes, stolen by the host) since the machine started."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS


def process_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Watch:
    """What others took of a core between two moments; `pids` and this process are not others."""

    def __init__(self, pids):
        self.pids = pids
        self.begin = self.now()

    def now(self):
        own = os.times()
        mine = own.user + own.system + sum(process_seconds(pid) for pid in self.pids)
        return (*busy_seconds(), mine, time.monotonic())

    def shares(self):
        """(others, stolen), each as a share of one core."""
        busy, stolen, own, elapsed = (b - a for a, b in zip(self.begin, self.now()))
        return max(0.0, busy - own) / elapsed, stolen / elapsed


class Engine:
    """A program that answers slices. `command` is without the options for threads."""

    def __init__(self, name, command, threads, variant=""):
        self.name = name
        self.variant = variant
        self.threads = threads
        self.warmed = set()
        self.errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8")
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        cores = cores_for(threads)
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
        try:
            self.about = self.answer(START_TIMEOUT_S)
        except Failed:
            self.stop()
            raise

    def answer(self, timeout_s):
        late = threading.Timer(timeout_s, self.process.kill)
        late.start()
        try:
            line = self.process.stdout.readline()
        finally:
            late.cancel()
        if not line.endswith("\n"):
            code = self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().strip().split("\n")[-1]
            raise Failed(f"{self.name}: ended with code {code}: {said}")
        return json.loads(line)

    def ask(self, batch, seconds):
        try:
            self.process.stdin.write(f"{batch} {seconds}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its answer says why
        return self.answer(SLICE_TIMEOUT_S)

    def slice(self, batch, seconds, others=()):
        """One slice, with "rate", "others" and "stolen"; `others` are processes not to count."""
        if batch not in self.warmed:
            for _ in range(2):  # a first step may compile for longer than the whole slice
                self.ask(batch, seconds / 4)
            self.warmed.add(batch)
        watch = Watch([self.process.pid, *others])
        answer = self.ask(batch, seconds)
        answer["rate"] = answer["samples"] / answer["seconds"]
        answer["others"], answer["stolen"] = watch.shares()
        return answer

    def calm_slice(self, batch, seconds):
        """The least disturbed of a few tries."""
        best = None
        for _ in range(1 + REPEATS):
            got = self.slice(batch, seconds)
            if best is None or got["others"] < best["others"]:
                best = got
            if best["others"] <= DISTURBED:
                break
        return best

    def stop(self):
        """Ends with the end of its input, or is made to."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Calm:
    """Adds up what the slices of a run say of the machine."""

    def __init__(self):
        self.seconds = self.others = self.stolen = 0.0

    def add(self, answer):
        self.seconds += answer["seconds"]
        self.others += answer["others"] * answer["seconds"]
        self.stolen += answer["stolen"] * answer["seconds"]

    def facts(self):
        seconds = max(self.seconds, 1e-9)
        others, stolen = self.others / seconds, self.stolen / seconds
        return {"quiet": max(others, stolen) <= NOT_QUIET,
                "others_percent": round(100 * others, 1), "steal_percent": round(100 * stolen, 1)}

    def text(self):
        facts = self.facts()
        return (f"The machine was {'quiet' if facts['quiet'] else 'NOT quiet'}: others took "
                f"{facts['others_percent']} % of a core, the host {facts['steal_percent']} %.")


def write_json(path, result, calm):
    """The figures for programs, with what is to be known of the machine. No path: nothing."""
    if not path:
        return
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**result, **calm.facts(), "machine": machine()}, file, indent=1)
        file.write("\n")


def machine():
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": len(os.sched_getaffinity(0))}
