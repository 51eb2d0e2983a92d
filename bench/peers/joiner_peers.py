#!/usr/bin/env python3
"""The label join in other systems, on the logs that Sluice's joiner is measured with.

    joiner_peers.py --logs ROOT [--expect IMPRESSIONS,Y,Z] [--threads 1,2] [--quick]
                    [--engines flink,kafka_streams] [--topics impressions,clicks,purchases]
                    [--click-window S] [--conversion-window S] [--out-of-orderness S]
                    [--guarantee exactly_once_v2|at_least_once] [--repeat N] [--build FOLDER]

ROOT holds <topic>/<partition>.jsonl. Apache Flink (bench/peers/flink) reads these files, Kafka
Streams (bench/peers/kafka_streams) topics of a broker of its own that were filled from them before.
Both decode the JSON, keep their state in RocksDB, make it durable every 10 s and count samples.

Prints a line of JSON an engine and number of threads; what it is doing, on stderr:
  events_per_s      from the first record read to the last one processed: the start of the virtual
  events_per_cpu_s  machine, of the mini cluster and of the consumer group lie before. CPU time is
                    user and system of the engine's whole process, garbage collector, compiler and
                    RocksDB's threads included, between the same two moments; the broker's apart
                    (broker_cpu_s). Of --repeat runs in one process the last: the others warm it.
  peak_rss_mb       of the process, over its whole life
  open              the most impressions that were open at once
Exits with 1 when a count differs from --expect, or an engine cannot be run.

Needs mvn and javac (Debian: maven, default-jdk-headless), and fetches 120 MB of jars once.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

PEERS = pathlib.Path(__file__).resolve().parent
ROOT = PEERS.parents[1]
sys.path.insert(0, str(PEERS.parent))

from engines import Watch, process_seconds  # noqa: E402

BUILD_TIMEOUT_S = 900
BROKER_TIMEOUT_S = 300
LOAD_TIMEOUT_S = 900
RUN_TIMEOUT_S = 1200  # a run; far more than any should take
BROKER = ROOT / "tests" / "broker" / "broker.sh"

# Flink's own scripts open these packages of the platform to it.
FLINK_OPENS = ("java.lang", "java.lang.reflect", "java.util", "java.util.concurrent",
               "java.util.concurrent.atomic", "java.net", "java.io", "java.nio", "java.text",
               "java.time")
FLINK_MEMORY = ("-Xmx1g",)
STREAMS_MEMORY = ("-Xmx1g",)
LOADER_MEMORY = ("-Xmx512m",)


class Failed(Exception):
    """A peer could not be built or run, or counted other labels; says why."""


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def last_lines(path, count=5):
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip() for line in file if line.strip() and not line.startswith("\tat ")]
    return "\n".join(lines[-count:])


def digest_of_sources():
    digest = hashlib.sha256()
    for path in sorted(PEERS.rglob("*")):
        if path.suffix in (".java", ".xml"):
            digest.update(str(path.relative_to(PEERS)).encode() + path.read_bytes())
    return digest.hexdigest()


def build(folder):
    """The jars of both peers under `folder`, made anew when a source has changed."""
    stamp = folder / "sources"
    digest = digest_of_sources()
    if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        raise Failed("mvn or javac is missing: Debian's packages maven and default-jdk-headless")
    say("building with Maven (the first time fetches the jars)")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "maven.log"
    with open(log, "w", encoding="utf-8") as output:
        made = subprocess.run(
            ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", str(PEERS / "pom.xml"),
             f"-Dpeers.build={folder}", "package"],
            stdout=output, stderr=subprocess.STDOUT, timeout=BUILD_TIMEOUT_S, check=False)
    if made.returncode != 0:
        raise Failed(f"Maven failed:\n{last_lines(log)}")
    stamp.write_text(digest, encoding="ascii")


@contextlib.contextmanager
def fresh_folder(path, *inner):
    """An empty folder, gone again afterwards: an engine's state takes gigabytes."""
    shutil.rmtree(path, ignore_errors=True)
    for name in inner or ("",):
        (path / name).mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Java:
    """One run of a peer's main class: the lines it prints, and what it cost."""

    def __init__(self, module, main, options, arguments, log):
        jars = f"{module}/{module.name}-1.jar:{module}/lib/*"
        self.log = log
        self.errors = open(log, "w", encoding="utf-8")
        self.process = subprocess.Popen(
            ["java", *options, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars,
             f"peers.{main}", *arguments],
            stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.peak_rss_mb = 0

    def lines(self, timeout_s):
        """Each line as it comes; raises when the program fails or takes too long."""
        late = threading.Timer(timeout_s, self.process.kill)
        late.start()
        try:
            yield from self.process.stdout
        finally:
            late.cancel()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.peak_rss_mb = usage.ru_maxrss // 1024
        if self.process.returncode != 0:
            raise Failed(f"ended with code {self.process.returncode}; {self.log} ends with:\n"
                         f"{last_lines(self.log)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Plan:
    def __init__(self, arguments):
        self.arguments = arguments
        self.build = arguments.build.resolve()
        self.logs = arguments.logs.resolve()
        self.topics = arguments.topics
        self.repeat = 1 if arguments.quick else arguments.repeat
        self.windows = ["--click-window-ms", str(arguments.click_window * 1000),
                        "--conversion-window-ms", str(arguments.conversion_window * 1000)]
        self.rule = [*self.windows,
                     "--out-of-orderness-ms", str(arguments.out_of_orderness * 1000),
                     "--topics", self.topics, "--repeat", str(self.repeat)]

    def partitions(self):
        first = self.logs / self.topics.split(",", maxsplit=1)[0]
        return len(list(first.glob("*.jsonl")))

    def measure(self, engine, threads, java, broker_pid=None):
        """The row of one process, from the reports of its runs."""
        others = [] if broker_pid is None else [broker_pid]
        watch = Watch([java.process.pid, *others])
        broker_cpu_s = process_seconds(broker_pid) if others else 0
        reports = []
        for line in java.lines(RUN_TIMEOUT_S * self.repeat):
            report = json.loads(line)
            report["others_percent"] = round(100 * watch.shares()[0], 1)
            watch = Watch([java.process.pid, *others])
            if others:
                now = process_seconds(broker_pid)
                report["broker_cpu_s"] = round(now - broker_cpu_s, 2)
                broker_cpu_s = now
            self.check(engine, report)
            reports.append(report)
            say(f"{engine}, {threads} threads, run {len(reports)} of {self.repeat}: "
                f"{report['events'] / report['seconds']:,.0f} events/s, "
                f"{report['events'] / report['cpu_s']:,.0f} a CPU second")
        return self.row(engine, threads, reports, java.peak_rss_mb)

    def check(self, engine, report):
        counted = [report["impressions"], report["y"], report["z"]]
        if report["late"] != 0:
            raise Failed(f"{engine} found {report['late']} records late")
        if report["events"] != sum(counted) + report["discarded"]:
            raise Failed(f"{engine} lost count: {report}")
        if self.arguments.expect is None:
            self.arguments.expect = counted  # then the peers must agree
        if counted != self.arguments.expect:
            raise Failed(f"{engine} counted {counted}, not {self.arguments.expect}")

    @staticmethod
    def row(engine, threads, reports, peak_rss_mb):
        last = reports[-1]
        row = {"engine": engine, "threads": threads, "open": last["open"],
               "events_per_s": round(last["events"] / last["seconds"]),
               "events_per_cpu_s": round(last["events"] / last["cpu_s"]),
               "peak_rss_mb": peak_rss_mb, "seconds": last["seconds"], "cpu_s": last["cpu_s"],
               "cold_events_per_cpu_s": round(reports[0]["events"] / reports[0]["cpu_s"]),
               "start_s": reports[0]["until_first_record_s"],
               "impressions": last["impressions"], "y": last["y"], "z": last["z"],
               "samples": last["samples"], "discarded": last["discarded"],
               "others_percent": last["others_percent"]}
        if "broker_cpu_s" in last:
            row["broker_cpu_s"] = last["broker_cpu_s"]
        return row


def run_flink(plan):
    options = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in FLINK_OPENS]
    for threads in plan.arguments.threads:
        with fresh_folder(plan.build / "flink-work", "tmp", "rocksdb", "checkpoints") as work:
            with Java(plan.build / "flink", "FlinkJoin", [*FLINK_MEMORY, *options],
                      ["--logs", str(plan.logs), "--work", str(work), "--slots", str(threads),
                       *plan.rule], plan.build / "flink.log") as java:
                row = plan.measure("flink", threads, java)
        yield row


@contextlib.contextmanager
def broker(plan):
    """A broker of its own: (host:port, pid). Its topics are gone with it."""
    with fresh_folder(plan.build / "broker") as folder:
        environment = dict(os.environ, SLUICE_BROKER_DIR=str(folder), SLUICE_BROKER_PORT="free",
                           SLUICE_BROKER_NODES="1")

        def call(verb):
            return subprocess.run([str(BROKER), verb], env=environment, stdout=subprocess.PIPE,
                                  text=True, timeout=BROKER_TIMEOUT_S, check=True).stdout

        try:
            address = call("start").strip()
            yield address, int((folder / "pid").read_text(encoding="ascii"))
        finally:
            call("stop")


def run_streams(plan):
    module = plan.build / "kafka_streams"
    with broker(plan) as (address, broker_pid):
        say("loading the logs into topics")
        with Java(module, "LoadLogs", LOADER_MEMORY,
                  ["--brokers", address, "--logs", str(plan.logs), "--topics", plan.topics,
                   *plan.windows], plan.build / "kafka_streams_load.log") as loader:
            for _ in loader.lines(LOAD_TIMEOUT_S):
                pass
        for threads in plan.arguments.threads:
            with fresh_folder(plan.build / "kafka_streams-work") as work:
                with Java(module, "StreamsJoin", STREAMS_MEMORY,
                          ["--brokers", address, "--partitions", str(plan.partitions()),
                           "--work", str(work), "--threads", str(threads),
                           "--application", f"join-{threads}",
                           "--guarantee", plan.arguments.guarantee, *plan.rule],
                          plan.build / "kafka_streams.log") as java:
                    row = plan.measure("kafka_streams", threads, java, broker_pid)
            yield row


ENGINES = {"flink": run_flink, "kafka_streams": run_streams}


def numbers(text):
    return [int(part) for part in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=pathlib.Path, required=True)
    parser.add_argument("--expect", type=numbers, metavar="IMPRESSIONS,Y,Z")
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="one run each, which does not warm")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=list(ENGINES))
    parser.add_argument("--topics", default="impressions,clicks,purchases")
    parser.add_argument("--click-window", type=int, default=1_800, metavar="S")
    parser.add_argument("--conversion-window", type=int, default=86_400, metavar="S")
    parser.add_argument("--out-of-orderness", type=int, default=10, metavar="S")
    parser.add_argument("--guarantee", default="exactly_once_v2",
                        choices=["exactly_once_v2", "at_least_once"], help="Kafka Streams'")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "peers")
    arguments = parser.parse_args()
    unknown = set(arguments.engines) - set(ENGINES)
    if unknown:
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    return arguments


def main():
    plan = Plan(parse_arguments())
    # So that what was started is ended by the `finally` clauses.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        build(plan.build)
        for engine in plan.arguments.engines:
            for row in ENGINES[engine](plan):
                print(json.dumps(row), flush=True)
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        say(failure)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
