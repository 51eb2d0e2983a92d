"""The join from a real Apache Kafka, beside the same logs in files: `./dev bench joiner --kafka`.

The joiner has the last core, the broker the others. CPU time is the joiner's process's alone, with
librdkafka's threads; the broker's is told apart. Labels and samples must be those from the files.
"""

import os
import pathlib
import subprocess

from bench.engines import cores_for, process_seconds

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "broker" / "broker.sh"


class Broker:
    """One node in a folder of its own, on these cores."""

    def __init__(self, folder, cores):
        self.environment = {**os.environ, "SLUICE_BROKER_DIR": str(folder),
                            "SLUICE_BROKER_PORT": "free", "SLUICE_BROKER_NODES": "1"}
        self.cores = cores
        self.address = self.call("start").strip()
        self.pid = int((folder / "pid").read_text())

    def call(self, verb):
        return subprocess.run([SCRIPT, verb], env=self.environment, check=True, text=True,
                              stdout=subprocess.PIPE,
                              preexec_fn=lambda: os.sched_setaffinity(0, self.cores)).stdout

    def cpu_seconds(self):
        return process_seconds(self.pid)

    def load(self, build, logs, compression, *more):
        """Makes topics of the logs, in librdkafka's batches of up to 1 MB."""
        subprocess.run([build / "topic_loader", "--brokers", self.address, "--root", logs,
                        "--compression", compression, *more],
                       check=True, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call("stop")


def from_kafka(bench, broker, window_s):
    """One run; its figures, and the broker's CPU time."""
    before = broker.cpu_seconds()
    bench.fresh()
    got = bench.join(1, window_s, source=("--brokers", broker.address), not_others=(broker.pid,))
    return {**got, "broker_cpu_s": round(broker.cpu_seconds() - before, 2)}


def from_files(bench, window_s):
    bench.fresh()
    return bench.join(1, window_s)


def measure_kafka(bench, compression):
    """Rows "files" and "kafka", the best of runs in turns, with a tenth of the impressions open."""
    window_s = bench.windows[bench.impressions // 10]
    runs = {"files": [], "kafka": []}
    others = os.sched_getaffinity(0) - cores_for(1)
    with Broker(bench.folder / "broker", others or cores_for(1)) as broker:
        broker.load(bench.build, bench.folder / "logs", compression)
        for _ in range(bench.tries):
            runs["files"].append(from_files(bench, window_s))
            runs["kafka"].append(from_kafka(bench, broker, window_s))
            for got in (runs["files"][-1], runs["kafka"][-1]):
                bench.check(got, window_s)
    bench.check_same(runs["files"] + runs["kafka"], "from files and from Kafka")
    return [{"source": source, "compression": compression,
             **max(runs[source], key=lambda got: got["events_per_cpu_s"])} for source in runs]


def print_kafka(rows):
    files, kafka = rows
    print(f"one core, {files['most_open']:,} open at most, broker on another, "
          f"{kafka['compression']} in batches of up to 1 MB:")
    for row in rows:
        print(f"  from {row['source']:5}: {row['events_per_s']:>9,.0f} events/s, "
              f"{row['events_per_cpu_s']:>9,.0f} per CPU-second")
    share = kafka["events_per_cpu_s"] / files["events_per_cpu_s"]
    wall = kafka["events_per_s"] / files["events_per_s"]
    print(f"  Kafka / files: {share:.2f} per CPU-second, {wall:.2f} a second; the broker took "
          f"{1e6 * kafka['broker_cpu_s'] / kafka['events']:.2f} CPU-seconds a million events")
