"""How fresh the model of a live service is: `./dev bench freshness`.

    freshness.py --build FOLDER [--rate N] [--seconds S] [--json FILE] [--quick]

A generated shop whose event times are now goes into Apache Kafka, each record at its event time (up
to 100 ms out of order), while `sluice run` joins and learns. The service itself tells what is
measured: the wall time from the end of a label's tick + max_out_of_orderness until the batch with
it is trained (the report's throughput.freshness_ms). Each row of the table differs from the first
one in what its name says. Two cores for everything: shop, broker, service.

The last row serves as well (`sluice run --serve`), with a snapshot every second of event time, most
of them deltas: measured is from the same moment until the served version has learned the label, by
asking the server for its version all the while.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench.engines import Calm, Watch, write_json  # noqa: E402
from bench.joiner_kafka import Broker  # noqa: E402

LEAD_S = 20  # for the logs, the topics and the service, before the first event
SERVICE_START_S = 3
DRAIN_S = 3
LIVE = {
    "join.tick": "100 ms", "training.batch_span": "100 ms", "store.commit_interval": "100 ms",
    "source.idle_after": "100 ms", "source.max_delay": "200 ms",
    "training.batch_size": 1024, "model.hidden": [200, 80],
}
ROWS = {
    "live": {},
    "tick and batch_span 1 s": {"join.tick": "1 s", "training.batch_span": "1 s"},
    "batch_span 1 s, tick 100 ms": {"training.batch_span": "1 s"},
    "commit_interval 1 s": {"store.commit_interval": "1 s"},
    "idle_after 1 s": {"source.idle_after": "1 s"},
}
TICK_MS = 100
MAX_OUT_OF_ORDERNESS_MS = 200
SERVED = "until it is served"
ROWS[SERVED] = {"snapshots.every": "1 s", "snapshots.full_every": 30, "snapshots.keep": 10_000,
                "serving.poll_interval": "100 ms"}


def make_shop(build, folder, rate, seconds, start):
    subprocess.run(
        [build / "sluice", "generate", "--out", folder, "--impressions", str(rate * seconds),
         "--span", f"{seconds} s", "--start", str(start), "--page", "20",
         "--click-window", "3 s", "--conversion-window", "10 s", "--disorder", "100 ms",
         "--max-out-of-orderness", f"{MAX_OUT_OF_ORDERNESS_MS} ms"], check=True, stdout=subprocess.DEVNULL)


def watch_until_end(loader, service, broker, timeout_s, calm):
    """Waits for the loader, and notes what others took of the machine meanwhile."""
    watch = Watch([loader.pid, service.pid, broker.pid])
    begin, shares = time.monotonic(), (0.0, 0.0)
    while (loader.poll() is None and service.poll() is None and
           time.monotonic() < begin + timeout_s):
        shares = watch.shares()
        time.sleep(0.5)
    calm.add({"seconds": time.monotonic() - begin, "others": shares[0], "stolen": shares[1]})


class ServedVersions(threading.Thread):
    """Asks the service for the version that it serves, and notes when each was first seen."""

    def __init__(self, log):
        super().__init__()
        self.log, self.seen, self.ends = log, {}, threading.Event()

    def address(self):
        for line in self.log.read_text(encoding="utf-8").splitlines():
            if " at http://" in line:
                return "http://" + line.split(" at http://", maxsplit=1)[1].split()[0]
        return None

    def run(self):
        while not self.ends.wait(0.02):
            try:
                with urllib.request.urlopen(f"{self.address()}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except (OSError, ValueError):
                continue  # not there yet
            for line in text.splitlines():
                if line.startswith("sluice_served_version{"):
                    self.seen.setdefault(int(float(line.split()[-1])), time.time() * 1000)

    def figures(self, snapshots):
        """Over the ticks between one served version and the next: how old a label's tick was when
        it came to be served, and of each version, from its publication on."""
        versions = []
        for sequence, wall in sorted(self.seen.items()):
            folder = snapshots / f"{sequence:012}"
            if folder.exists():  # 0: none is served yet
                manifest = json.loads((folder / "manifest.json").read_text())
                provenance = json.loads((folder / "provenance.json").read_text())
                published = datetime.datetime.fromisoformat(provenance["published"])
                versions.append((manifest["tick"], wall, published.timestamp() * 1000,
                                 manifest["kind"],
                                 (folder / "weights.safetensors").stat().st_size))
        ages = []
        for (before, *_), (tick, wall, *_) in zip(versions, versions[1:]):
            decided = range(before + TICK_MS, tick + TICK_MS, TICK_MS)
            ages += [wall - (one + TICK_MS + MAX_OUT_OF_ORDERNESS_MS) for one in decided]
        ages.sort()
        loads = sorted(wall - published for _, wall, published, *_ in versions)
        size = lambda kind: max((one[4] for one in versions if one[3] == kind), default=0)
        return {"median": round(ages[len(ages) // 2]), "p99": round(ages[len(ages) * 99 // 100]),
                "longest": round(ages[-1]),
                "served": {"versions": len(versions), "published_to_served_ms":
                           {"median": round(loads[len(loads) // 2]), "longest": round(loads[-1])},
                           "bytes": {kind: size(kind) for kind in ("full", "delta")}}}


def run_live(build, broker, folder, prefix, settings, start, seconds, calm, serves):
    """The service's report after a live run of the shop in `folder`, which begins at `start`, and
    who asked it for its versions."""
    loader = subprocess.Popen(
        [build / "topic_loader", "--brokers", broker.address, "--root", folder,
         "--prefix", prefix, "--live"], stdout=subprocess.PIPE, text=True)
    service = None
    served = ServedVersions(folder / "service.log")
    try:
        if loader.stdout.readline() != "ready\n":
            sys.exit("bench: the topics could not be made")
        if time.time() > start - SERVICE_START_S:
            sys.exit("bench: the shop was not ready in time; the machine is too busy")
        report = folder / "report.json"
        source = {"source.type": "kafka", "source.brokers": broker.address,
                  **{f"streams.{stream}.topic": prefix + stream
                     for stream in ("impressions", "clicks", "purchases")}}
        words = [word for key, value in {**source, **settings}.items()
                 for word in ("--set", f"{key}={json.dumps(value)}")]
        with open(folder / "service.log", "w", encoding="utf-8") as log:
            service = subprocess.Popen(
                [build / "sluice", "run", folder / "shop.toml", "--data-dir", folder / "data",
                 "--report", report, *(["--serve", "--set", "serving.port=0"] if serves else []),
                 *words], stdout=log, stderr=log)
        if serves:
            served.start()
        watch_until_end(loader, service, broker, seconds + 60, calm)
        if loader.poll() != 0:
            sys.exit("bench: the shop's events could not be sent: " +
                     (folder / "service.log").read_text(encoding="utf-8")[-2000:])
        time.sleep(DRAIN_S)
        service.send_signal(signal.SIGTERM)
        if service.wait(timeout=60) != 0:
            sys.exit("bench: " + (folder / "service.log").read_text(encoding="utf-8")[-2000:])
        return json.loads(report.read_text(encoding="utf-8")), served
    finally:
        served.ends.set()
        for process in (loader, service):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def measure(build, broker, folder, number, changed, arguments, calm):
    start = int(time.time()) + LEAD_S
    folder = folder / str(number)
    make_shop(build, folder, arguments.rate, arguments.seconds,
              time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)))
    serves = "serving.poll_interval" in changed
    report, served = run_live(build, broker, folder, f"live{number}-", {**LIVE, **changed},
                              start, arguments.seconds + LEAD_S, calm, serves)
    if "freshness_ms" not in report["throughput"]:
        sys.exit(f"bench: nothing was learned in {arguments.seconds} s; see {folder}")
    events = sum(report["events"].values())
    figures = report["throughput"]["freshness_ms"]
    if serves:
        figures = {"learned_ms": figures,
                   **served.figures(next((folder / "data" / "models").iterdir()) / "snapshots")}
    shutil.rmtree(folder)
    return {"events_per_s": round(events / arguments.seconds), "trained": report["trained"],
            "refused": {reason: count for reason, count in report["refused"].items() if count},
            **figures}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     prog="./dev bench freshness")
    parser.add_argument("--build", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, default=10_000, metavar="N",
                        help="impressions a second (10,000: a tenth of what the pipeline can do)")
    parser.add_argument("--seconds", type=int, default=30, metavar="S", help="of each row")
    parser.add_argument("--only", type=int, metavar="N", help="the first N rows")
    parser.add_argument("--json", metavar="FILE", help="the figures, for programs")
    parser.add_argument("--served", action="store_true", help="the last row alone")
    parser.add_argument("--quick", action="store_true", help="10 seconds, the first row")
    return parser.parse_args()


def main():
    arguments = parse()
    build = arguments.build.resolve()
    if arguments.quick:
        arguments.seconds, arguments.only = 10, 1
    folder = build.parent / "bench-freshness"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    calm = Calm()
    print(f"{'':30}{'events/s':>10}{'median ms':>11}{'p99 ms':>8}{'longest ms':>12}")
    with Broker(folder / "broker", os.sched_getaffinity(0)) as broker:
        rows_wanted = [(SERVED, ROWS[SERVED])] if arguments.served else list(ROWS.items())
        for number, (name, changed) in enumerate(rows_wanted[:arguments.only]):
            row = {"name": name, "settings": {**LIVE, **changed},
                   **measure(build, broker, folder, number, changed, arguments, calm)}
            rows.append(row)
            print(f"{name:30}{row['events_per_s']:>10,}{row['median']:>11,}{row['p99']:>8,}"
                  f"{row['longest']:>12,}", flush=True)
            if name == SERVED:
                print(f"  of these: learned after {row['learned_ms']}; {row['served']}")
    print("\n" + calm.text())
    shutil.rmtree(folder)
    write_json(arguments.json, {"rows": rows, "rate": arguments.rate}, calm)


if __name__ == "__main__":
    main()
