"""The join alone, from logs in files to committed samples: one table, one run, one machine.

    joiner_table.py --build FOLDER [--json FILE] [--impressions N] [--quick] [--peers] [--large]
                    [--kafka [--compression C]]

The logs are made by joiner_logs; every run's labels are compared with those that they must give.
`threads` is the number of cores that the whole process may use. A figure is that of the best of a few
runs: what others do on the machine can only take from it.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench.engines import Calm, Watch, cores_for, write_json  # noqa: E402
from bench.joiner_kafka import measure_kafka, print_kafka  # noqa: E402

PEERS = pathlib.Path(__file__).resolve().parent / "peers" / "joiner_peers.py"
SPAN_S = 7_200
DAY_S = 86_400
THREADS = (1, 2)
MEMTABLE_MB = 16
COMMIT_MS = 100


def note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Wrong(Exception):
    """A run that did not do what it must; says what."""


def generate(build, out, impressions, span_s, windows_s, *more):
    """Makes logs; what joiner_logs says of them."""
    note(f"{out.name} of {impressions:,} impressions")
    made = subprocess.run(
        [build / "joiner_logs", "--out", out, "--impressions", str(impressions),
         "--span", str(span_s), *more, "--click-windows", *map(str, windows_s)],
        check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(made.stdout)


def run_joiner(build, source, data, window_s, *more, memtable_mb=MEMTABLE_MB, before=None):
    """One run of joiner_bench, which calls `before` in its process first; its JSON line. `source`:
    its options that say where the logs are."""
    process = subprocess.Popen(
        [build / "joiner_bench", *source, "--data-dir", data, "--click-window",
         str(window_s), "--memtable-mb", str(memtable_mb), "--commit-ms", str(COMMIT_MS), *more],
        stdout=subprocess.PIPE, text=True, preexec_fn=before)
    text = process.communicate()[0]
    if process.returncode != 0:
        raise Wrong(f"joiner_bench ended with {process.returncode}")
    return json.loads(text)


class Bench:
    def __init__(self, arguments, folder):
        self.build = pathlib.Path(arguments.build)
        self.folder = folder
        self.impressions = 200_000 if arguments.quick else arguments.impressions
        self.tries = 1 if arguments.quick else 3
        self.calm = Calm()
        # A tenth of the impressions open at once, and all of them.
        self.windows = {self.impressions // 10: SPAN_S // 10, self.impressions: 3 * SPAN_S // 2}
        self.expected = generate(self.build, folder / "logs", self.impressions, SPAN_S,
                                 self.windows.values())

    def join(self, threads, window_s, *more, logs="logs", source=None, not_others=()):
        """One run; its JSON line, and how much of a core others took meanwhile; the
        processes in `not_others` are not counted as such."""
        cores = cores_for(threads)
        source = source or ("--logs", self.folder / logs)
        watch = Watch(not_others)
        got = run_joiner(self.build, source, self.folder / "data", window_s, *more,
                         before=lambda: os.sched_setaffinity(0, cores))
        others, stolen = watch.shares()
        # What the run itself took is not others'; it has ended, so its own figures tell.
        others = max(0.0, others - got["cpu_s"] / max(got["wall_s"], 1e-9))
        self.calm.add({"seconds": got["wall_s"], "others": others, "stolen": stolen})
        return got

    def check(self, got, window_s, expected=None):
        expected = expected or self.expected
        wanted = next(one for one in expected["labels"] if one["click_window_s"] == window_s)
        found = {"impressions": got["impressions"], "y": got["y"], "z": got["z"]}
        truth = {"impressions": expected["impressions"], "y": wanted["y"], "z": wanted["z"]}
        if found != truth:
            raise Wrong(f"labels {found}, they must be {truth}")

    @staticmethod
    def check_same(runs, where):
        if len({run["samples_digest"] for run in runs}) != 1:
            raise Wrong(f"samples differ between runs {where}")

    def fresh(self):
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def row(self, threads, open_count, attribution="impression_id"):
        window_s = self.windows[open_count]
        best = None
        for _ in range(self.tries):
            self.fresh()
            got = self.join(threads, window_s, "--attribution", attribution)
            if attribution == "impression_id":
                self.check(got, window_s)
            if best is None or got["events_per_cpu_s"] > best["events_per_cpu_s"]:
                best = got
        note(f"{attribution}, {threads} core(s), {open_count:,} open: "
             f"{best['events_per_cpu_s']:,.0f} events per CPU-second")
        keys = ("events_per_s", "events_per_cpu_s", "peak_rss_mb", "written_bytes_per_event",
                "p99_step_ms", "disk_mb", "samples_digest")
        return {"engine": "sluice", "threads": threads, "open": open_count,
                "attribution": attribution, **{key: best[key] for key in keys}}

    def restart(self, open_count):
        """Seconds to open the state in the middle of the logs, or near their end where all is
        open; then it must come to the same labels and samples."""
        window_s = self.windows[open_count]
        share = "0.5" if open_count < self.impressions else "0.97"
        self.fresh()
        self.join(1, window_s, "--stop-at", share)
        again = self.join(1, window_s)
        self.check(again, window_s)
        return {"open": open_count, "restart_s": again["restart_s"],
                "samples_digest": again["samples_digest"]}

    def hard_cases(self):
        """One core each: skewed logs, and a quarter of the impressions in a single tick."""
        window_s = SPAN_S // 10
        skewed = generate(self.build, self.folder / "skewed", self.impressions, SPAN_S, [window_s],
                          "--skewed")
        tick = generate(self.build, self.folder / "tick", self.impressions // 4, 1, [window_s])
        rows = []
        for case, logs, attribution, expected in (
                ("one user has 30 %, a shard nothing", "skewed", "impression_id", skewed),
                ("the same, by user and item", "skewed", "user_item", None),
                (f"{tick['impressions']:,} impressions in one tick", "tick", "impression_id",
                 tick)):
            self.fresh()
            got = self.join(1, window_s, "--attribution", attribution, logs=logs)
            if expected is not None:
                self.check(got, window_s, expected)
            rows.append({"case": case, **got})
        return rows


def measure(bench):
    rows, restarts = [], []
    for open_count in bench.windows:
        for threads in THREADS:
            rows.append(bench.row(threads, open_count))
        restarts.append(bench.restart(open_count))
    rows.append(bench.row(1, bench.impressions // 10, "user_item"))
    for one in rows + restarts:
        same = [other for other in rows + restarts if other["open"] == one["open"] and
                one.get("attribution", "impression_id") == other.get("attribution", "impression_id")]
        bench.check_same(same, f"with {one['open']:,} open")
    return rows, restarts


def measure_peers(bench):
    """Rows of the same form, of what others need for the same logs and the same labels."""
    rows = []
    for labels, open_count in zip(bench.expected["labels"], bench.windows):
        command = [sys.executable, PEERS, "--logs", bench.folder / "logs",
                   "--conversion-window", str(DAY_S),
                   "--click-window", str(labels["click_window_s"]),
                   "--expect", f"{bench.impressions},{labels['y']},{labels['z']}"]
        if bench.tries == 1:
            command.append("--quick")
        made = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        for line in made.stdout.splitlines():
            row = json.loads(line)
            rows.append({**row, "open": open_count, "most_open": row["open"]})
        if made.returncode != 0:
            raise Wrong(f"joiner_peers.py ended with {made.returncode}")
    return rows


class Large:
    """Days of impressions, all of them open at once, with less memory than their state takes."""

    SPAN_S = 7 * DAY_S
    WINDOWS = 10

    def __init__(self, arguments, folder):
        self.build = pathlib.Path(arguments.build)
        self.folder = folder
        self.impressions = 1_000_000 if arguments.quick else 20_000_000
        generate(self.build, folder / "week", self.impressions, self.SPAN_S, [self.SPAN_S])

    def join(self, window_s, *more, group=None):
        data = self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        return run_joiner(self.build, ("--logs", self.folder / "week"), data, window_s,
                          "--block-cache-mb", "8", *more, memtable_mb=8,
                          before=None if group is None else group.enter)

    def beyond_memory(self):
        """In memory, then with limits: those that it survives, from half of the state on down. All
        with 8 MB of memtables and of block cache."""
        free = self.join(self.SPAN_S)
        runs = [{"limit_mb": None, **free}]
        try:
            group = MemoryGroup()
        except OSError as error:
            note(f"no run with less memory: a memory group cannot be made ({error})")
            return runs
        with group:
            for share in (0.5, 0.4, 0.33, 0.25):
                group.limit(int(share * free["disk_mb"] * 1e6))
                try:
                    got = self.join(self.SPAN_S, group=group)
                except Wrong as error:
                    note(f"with {share} of the state's size: {error}")
                    break
                if got["samples_digest"] != free["samples_digest"]:
                    raise Wrong("samples differ when there is less memory")
                runs.append({"limit_mb": share * free["disk_mb"], **got})
        return runs

    def many_windows(self):
        """A tenth of it open: after three windows and after ten it must be as large."""
        window_s = self.SPAN_S // self.WINDOWS
        return [{"windows": windows, **self.join(window_s, "--conversion-window", str(window_s),
                                                 "--stop-at", str(windows / self.WINDOWS))}
                for windows in (3, self.WINDOWS)]

    def measure(self):
        beyond, windows = self.beyond_memory(), self.many_windows()
        print(f"\n{self.impressions:,} open at once; state on disk {beyond[0]['disk_mb']:,.0f} MB")
        for run in beyond:
            limit = "none" if run["limit_mb"] is None else f"{run['limit_mb']:,.0f} MB"
            print(f"  memory limit {limit:>9}: {run['events_per_s']:>9,.0f} events/s, RSS "
                  f"{run['peak_rss_mb']:,.0f} MB, p99 of a step {run['p99_step_ms']:.0f} ms, "
                  f"longest {run['longest_step_ms']:,.0f} ms")
        for run in windows:
            print(f"  {run['windows']:>2} windows of {run['most_open']:,}: RSS "
                  f"{run['peak_rss_mb']:,.0f} MB, disk {run['disk_mb']:,.0f} MB")
        return {"beyond_memory": beyond, "windows": windows}


class MemoryGroup:
    """A control group of the kernel's (version 1) for what should have less memory."""

    PATH = pathlib.Path("/sys/fs/cgroup/memory")

    def __init__(self):
        self.path = self.PATH / f"sluice-bench-{os.getpid()}"
        self.path.mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.path.rmdir()

    def limit(self, size):
        (self.path / "memory.limit_in_bytes").write_text(str(size))

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))


def print_table(rows, restarts):
    print(f"{'engine':30}{'cores':>6}{'open':>11}{'events/s':>12}{'per CPU-s':>12}"
          f"{'B/event':>9}{'RSS MB':>8}")
    for row in rows:
        name = row["engine"]
        if row.get("attribution", "impression_id") != "impression_id":
            name += f", {row['attribution']}"
        written = row.get("written_bytes_per_event")
        print(f"{name:30}{row['threads']:>6}{row['open']:>11,}{row['events_per_s']:>12,.0f}"
              f"{row['events_per_cpu_s']:>12,.0f}"
              f"{'-' if written is None else format(written, '.0f'):>9}"
              f"{row['peak_rss_mb']:>8,.0f}")
    for one in restarts:
        print(f"a restart with {one['open']:,} open: {one['restart_s']:.2f} s")
    own = {(row["threads"], row["open"]): row["events_per_cpu_s"] for row in rows
           if row["engine"] == "sluice" and row["attribution"] == "impression_id"}
    for row in rows:
        key = (row["threads"], row["open"])
        if row["engine"] != "sluice" and key in own:
            print(f"sluice / {row['engine']}, {key[0]} core(s), {key[1]:,} open: "
                  f"{own[key] / row['events_per_cpu_s']:.1f}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     prog="./dev bench joiner")
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="the figures, for programs")
    parser.add_argument("--impressions", type=int, default=2_000_000, metavar="N")
    parser.add_argument("--peers", action="store_true", help="other systems on the same logs too")
    parser.add_argument("--large", action="store_true",
                        help="also 20 million open at once, with little memory (10 GB of disk)")
    parser.add_argument("--kafka", action="store_true",
                        help="only the rate from Apache Kafka beside that from files")
    parser.add_argument("--compression", default="lz4", choices=("none", "lz4", "snappy", "zstd"),
                        help="of the topics, with --kafka")
    parser.add_argument("--quick", action="store_true",
                        help="less of everything, to see that it works")
    return parser.parse_args()


def main():
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="joiner-", dir=arguments.build) as folder:
        bench = Bench(arguments, pathlib.Path(folder))
        if arguments.kafka:
            rows = measure_kafka(bench, arguments.compression)
            print_kafka(rows)
            print("\n" + bench.calm.text())
            write_json(arguments.json, {"kafka": rows, "logs": bench.expected,
                                        "quick": arguments.quick}, bench.calm)
            return
        rows, restarts = measure(bench)
        try:
            if arguments.peers:
                rows += measure_peers(bench)
        except Wrong as error:  # our own figures stand
            note(str(error))
        print_table(rows, restarts)
        hard = bench.hard_cases()
        for row in hard:
            print(f"{row['case']}: {row['events_per_cpu_s']:,.0f} events per CPU-second, RSS "
                  f"{row['peak_rss_mb']:,.0f} MB, longest step {row['longest_step_ms']:,.0f} ms")
        print("\n" + bench.calm.text())
        large = Large(arguments, pathlib.Path(folder)).measure() if arguments.large else None
        write_json(arguments.json, {"rows": rows, "restarts": restarts, "hard_cases": hard,
                                    "large": large, "logs": bench.expected,
                                    "quick": arguments.quick}, bench.calm)


if __name__ == "__main__":
    main()
