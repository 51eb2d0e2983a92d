"""The whole way from logs to the model, beside its stages alone: one run, one machine.

    pipeline_table.py --build FOLDER [--impressions N] [--json FILE] [--plot FILE] [--quick]

Generated logs of 20 features are replayed on two cores, JSON to weights, with the paper's network;
while that runs, the samples learned, the memory and the disk are looked at twice a second. Then the
stages alone: the join of the same logs on one core, and the learner with two threads on samples of
such logs that are joined already.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench.engines import Calm, Engine, Watch, cores_for, write_json  # noqa: E402

BATCH = 1024
SCORE_BYTES = 16  # of a learned sample in the model's scores.bin
LEARNER_IMPRESSIONS = 200_000
REPLAY_LIMIT_S = 3600
PRECISIONS = ("f32", "bf16")
CONFIG = """\
[source]
type = "files"
root = "{logs}"

[join]
attribution       = "impression_id"
click_window      = "12 min"
conversion_window = "1 d"

[features]
{features}

[model]
name          = "bench"
recipe        = "esmm"
embedding_dim = 18
hidden        = [200, 80]
precision     = "{precision}"

[training]
batch_size = {batch}

[checkpoints]
every = 5_000_000

[snapshots]
every = "1 d"
"""


def make_logs(build, folder, impressions):
    """A config for each precision, and how many events the logs hold."""
    shutil.rmtree(folder, ignore_errors=True)
    logs = folder / "logs"
    made = subprocess.run([str(build / "joiner_logs"), "--out", str(logs), "--impressions",
                           str(impressions)], check=True, capture_output=True, text=True)
    facts = json.loads(made.stdout)
    features = "\n".join(f'c{n} = {{ path = "features.c{n}", type = "id" }}' for n in range(20))
    configs = {}
    for precision in PRECISIONS:
        configs[precision] = folder / f"{precision}.toml"
        configs[precision].write_text(CONFIG.format(
            logs=logs, features=features, precision=precision, batch=BATCH), encoding="utf-8")
    return configs, sum(facts[name] for name in ("impressions", "clicks", "purchases"))


def folder_bytes(folder):
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                pass  # compacted away meanwhile
    return total


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
    return 0  # it has ended, and is not waited for yet


def replay(build, config, data):
    """(report, looks, what others took): a look is (seconds, samples learned, resident bytes,
    bytes on disk)."""
    shutil.rmtree(data, ignore_errors=True)
    report = data.with_suffix(".json")
    process = subprocess.Popen(
        [str(build / "sluice"), "replay", str(config), "--data-dir", str(data), "--report",
         str(report), "--threads", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores_for(2)))
    scores = data / "models" / "bench" / "scores.bin"
    begin, looks = time.monotonic(), []
    watch = Watch([process.pid])
    shares = (0.0, 0.0)
    try:
        while process.poll() is None:
            learned = scores.stat().st_size // SCORE_BYTES if scores.exists() else 0
            looks.append((time.monotonic() - begin, learned, resident_bytes(process.pid),
                          folder_bytes(data)))
            shares = watch.shares()
            if looks[-1][0] > REPLAY_LIMIT_S:
                sys.exit(f"bench: the replay took over {REPLAY_LIMIT_S} s")
            time.sleep(0.5)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    if process.returncode != 0:
        sys.exit(f"bench: the replay of {config} ended with code {process.returncode}")
    return json.loads(report.read_text(encoding="utf-8")), looks, shares


def rate_between(looks, begin, end):
    """Samples a second from share `begin` to share `end` of all that were learned."""
    total = looks[-1][1]
    learning = [look for look in looks if 0 < look[1] < total]  # not what comes before and after
    inside = [look for look in learning if begin * total <= look[1] <= end * total]
    if len(inside) < 2 or inside[-1][0] == inside[0][0]:
        return None
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def join_alone(build, logs, data):
    shutil.rmtree(data, ignore_errors=True)
    out = subprocess.run(
        [str(build / "joiner_bench"), "--logs", str(logs), "--data-dir", str(data),
         "--click-window", "720"], check=True, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores_for(1)))
    return json.loads(out.stdout)


def learner_alone(build, config, precision, calm):
    """Samples a second, two threads, median of five slices."""
    engine = Engine("learner", [str(build / "sharing_bench"), str(config), "--batch", str(BATCH),
                                "--precision", precision], 2)
    try:
        rates = []
        for _ in range(5):
            answer = engine.calm_slice(BATCH, 1)
            calm.add(answer)
            rates.append(answer["rate"])
    finally:
        engine.stop()
    return statistics.median(rates)


# ---- the plot: three curves over time, each with an axis of its own, as SVG without a library

WIDTH, HEIGHT, LEFT, GAP = 640, 120, 90, 40


def curve(number, title, unit, points):
    """One panel: points are (seconds, value)."""
    top = GAP + number * (HEIGHT + GAP)
    last = max(points[-1][0], 1e-9)
    most = max(value for _, value in points) or 1
    path = " ".join(f"{LEFT + WIDTH * x / last:.1f},{top + HEIGHT * (1 - y / most):.1f}"
                    for x, y in points)
    return (f'<text x="{LEFT}" y="{top - 8}">{title}</text>\n'
            f'<text x="{LEFT - 8}" y="{top + 10}" text-anchor="end">{most:,.0f} {unit}</text>\n'
            f'<text x="{LEFT - 8}" y="{top + HEIGHT}" text-anchor="end">0</text>\n'
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" '
            f'stroke="#bbb"/>\n<polyline fill="none" stroke="#1565c0" stroke-width="1.5" '
            f'points="{path}"/>\n')


def plot(looks, path):
    # A rate over so many looks: batches come in runs, commit by commit.
    span = max(1, len(looks) // 100)
    rates = [(looks[n][0], (looks[n][1] - looks[n - span][1]) / (looks[n][0] - looks[n - span][0]))
             for n in range(span, len(looks))]
    panels = [("samples learned a second", "/s", rates),
              ("resident memory", "MB", [(look[0], look[2] / 1e6) for look in looks]),
              ("disk", "MB", [(look[0], look[3] / 1e6) for look in looks])]
    height = GAP + len(panels) * (HEIGHT + GAP)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{height}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "".join(curve(n, *panel) for n, panel in enumerate(panels))
        + f'<text x="{LEFT + WIDTH}" y="{height - GAP + 16}" text-anchor="end">'
        f"{looks[-1][0]:,.0f} s</text>\n</svg>\n", encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     prog="./dev bench pipeline")
    parser.add_argument("--build", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--impressions", type=int, default=5_000_000, metavar="N",
                        help="default: 5 million; a million takes 0.3 GB of logs")
    parser.add_argument("--json", metavar="FILE", help="the figures, for programs")
    parser.add_argument("--plot", metavar="FILE", type=pathlib.Path,
                        help="rate, memory and disk over time, as SVG")
    parser.add_argument("--quick", action="store_true", help="200,000 impressions")
    return parser.parse_args()


def main():
    arguments = parse()
    build = arguments.build
    impressions = 200_000 if arguments.quick else arguments.impressions
    folder = (build.parent / "bench-pipeline").resolve()
    calm = Calm()
    configs, events = make_logs(build, folder / "whole", impressions)
    few, _ = make_logs(build, folder / "few", min(impressions, LEARNER_IMPRESSIONS))
    join = join_alone(build, folder / "whole" / "logs", folder / "join")
    shutil.rmtree(folder / "join")
    # A sample of the pipeline costs the join some events, which it reads at this rate.
    samples_per_event = join["samples"] / join["events"]
    join_rate = join["events_per_s"] * samples_per_event
    print(f"{impressions:,} impressions, {events:,} events; thousand samples/s")
    print(f"{'':6}{'join alone':>12}{'learner alone':>15}{'pipeline':>10}{'of the slower':>15}"
          f"{'first tenth':>13}{'last tenth':>12}{'peak MB':>9}{'disk MB':>9}")
    rows = []
    for precision in PRECISIONS:
        learner = learner_alone(build, few[precision], precision, calm)
        report, looks, shares = replay(build, configs[precision], folder / precision)
        seconds = looks[-1][0]
        calm.add({"seconds": seconds, "others": shares[0], "stolen": shares[1]})
        rate = report["throughput"]["samples_per_s"]
        slowest = min(join_rate, learner)
        row = {"precision": precision, "join_samples_per_s": round(join_rate),
               "learner_samples_per_s": round(learner), "samples_per_s": round(rate),
               "slowest": "join" if join_rate < learner else "learner",
               "of_slowest": round(rate / slowest, 3),
               "first_tenth": rate_between(looks, 0, 0.1), "last_tenth": rate_between(looks, 0.9, 1),
               "peak_rss_mb": round(max(look[2] for look in looks) / 1e6),
               "peak_disk_mb": round(max(look[3] for look in looks) / 1e6),
               "model_digest": report["model_digest"]}
        rows.append(row)
        tenths = "".join(f"{'-' if row[name] is None else format(row[name] / 1e3, '.1f'):>{width}}"
                         for name, width in (("first_tenth", 13), ("last_tenth", 12)))
        print(f"{precision:6}{join_rate / 1e3:12.1f}{learner / 1e3:15.1f}{rate / 1e3:10.1f}"
              f"{row['of_slowest']:15.2f}{tenths}{row['peak_rss_mb']:9,}{row['peak_disk_mb']:9,}",
              flush=True)
        if arguments.plot:
            plot(looks, arguments.plot.with_suffix(f".{precision}.svg"))
        shutil.rmtree(folder / precision, ignore_errors=True)
    shutil.rmtree(folder)
    print("\n" + calm.text())
    write_json(arguments.json, {"rows": rows, "impressions": impressions}, calm)


if __name__ == "__main__":
    main()
