"""How fresh the model of a live service is: `./dev bench freshness`.

    freshness.py --build FOLDER [--rate N] [--seconds S] [--json FILE] [--quick]

A generated shop whose event times are now goes into Apache Kafka, each record at its event time (up
to 100 ms out of order), while `sluice run` joins and learns. The service itself tells what is
measured: the wall time from the end of a label's tick + max_out_of_orderness until the batch with
it is trained (the report's throughput.freshness_ms). Each row of the table differs from the first
one in what its name says. Two cores for everything: shop, broker, service.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

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


def make_shop(build, folder, rate, seconds, start):
    subprocess.run(
        [build / "sluice", "generate", "--out", folder, "--impressions", str(rate * seconds),
         "--span", f"{seconds} s", "--start", str(start), "--page", "20",
         "--click-window", "3 s", "--conversion-window", "10 s", "--disorder", "100 ms",
         "--max-out-of-orderness", "200 ms"], check=True, stdout=subprocess.DEVNULL)


def watch_until_end(loader, service, broker, timeout_s, calm):
    """Waits for the loader, and notes what others took of the machine meanwhile."""
    watch = Watch([loader.pid, service.pid, broker.pid])
    begin, shares = time.monotonic(), (0.0, 0.0)
    while (loader.poll() is None and service.poll() is None and
           time.monotonic() < begin + timeout_s):
        shares = watch.shares()
        time.sleep(0.5)
    calm.add({"seconds": time.monotonic() - begin, "others": shares[0], "stolen": shares[1]})


def run_live(build, broker, folder, prefix, settings, start, seconds, calm):
    """The service's report after a live run of the shop in `folder`, which begins at `start`."""
    loader = subprocess.Popen(
        [build / "topic_loader", "--brokers", broker.address, "--root", folder,
         "--prefix", prefix, "--live"], stdout=subprocess.PIPE, text=True)
    service = None
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
                 "--report", report, *words], stdout=subprocess.DEVNULL, stderr=log)
        watch_until_end(loader, service, broker, seconds + 60, calm)
        if loader.poll() != 0:
            sys.exit("bench: the shop's events could not be sent: " +
                     (folder / "service.log").read_text(encoding="utf-8")[-2000:])
        time.sleep(DRAIN_S)
        service.send_signal(signal.SIGTERM)
        if service.wait(timeout=60) != 0:
            sys.exit("bench: " + (folder / "service.log").read_text(encoding="utf-8")[-2000:])
        return json.loads(report.read_text(encoding="utf-8"))
    finally:
        for process in (loader, service):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def measure(build, broker, folder, number, changed, arguments, calm):
    start = int(time.time()) + LEAD_S
    folder = folder / str(number)
    make_shop(build, folder, arguments.rate, arguments.seconds,
              time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)))
    report = run_live(build, broker, folder, f"live{number}-", {**LIVE, **changed},
                      start, arguments.seconds + LEAD_S, calm)
    if "freshness_ms" not in report["throughput"]:
        sys.exit(f"bench: nothing was learned in {arguments.seconds} s; see {folder}")
    events = sum(report["events"].values())
    shutil.rmtree(folder)
    return {"events_per_s": round(events / arguments.seconds), "trained": report["trained"],
            "refused": {reason: count for reason, count in report["refused"].items() if count},
            **report["throughput"]["freshness_ms"]}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     prog="./dev bench freshness")
    parser.add_argument("--build", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, default=10_000, metavar="N",
                        help="impressions a second (10,000: a tenth of what the pipeline can do)")
    parser.add_argument("--seconds", type=int, default=30, metavar="S", help="of each row")
    parser.add_argument("--only", type=int, metavar="N", help="the first N rows")
    parser.add_argument("--json", metavar="FILE", help="the figures, for programs")
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
        for number, (name, changed) in enumerate(list(ROWS.items())[:arguments.only]):
            row = {"name": name, "settings": {**LIVE, **changed},
                   **measure(build, broker, folder, number, changed, arguments, calm)}
            rows.append(row)
            print(f"{name:30}{row['events_per_s']:>10,}{row['median']:>11,}{row['p99']:>8,}"
                  f"{row['longest']:>12,}", flush=True)
    print("\n" + calm.text())
    shutil.rmtree(folder)
    write_json(arguments.json, {"rows": rows, "rate": arguments.rate}, calm)


if __name__ == "__main__":
    main()
