"""What the table of bench/learner_table.py does not show: tables of other sizes, impressions that
share features, and a neighbour that takes a core."""

import pathlib
import shutil
import statistics
import subprocess
import sys

from bench.engines import Engine, Failed, Watch, available_bytes, cores_for

BATCH = 1024
PRECISIONS = ("f32", "bf16")
MOST_ROW_BYTES = 360  # for a first guess whether a table fits into memory
BUSY_LIMIT_S = 120    # the neighbour ends by itself, whatever becomes of the bench


def measure_rows(plan, calm):
    """Rate, bytes a row and pauses, by the number of rows in all tables. Rows are made by batches
    of the same size as are timed, each naming 20 new ones a sample: the worst that can come."""
    results = []
    print(f"{'rows':>12}{'samples/s':>12}{'bytes/row':>11}{'p99 ms':>9}{'longest ms':>12}"
          f"{'  while all rows are new: median, p99, longest ms':50}")
    for rows in (200_000, 1_000_000) if plan.quick else (1_000_000, 10_000_000, 50_000_000):
        if rows * MOST_ROW_BYTES > available_bytes():
            print(f"{rows:12,}  left out: it may need {rows * MOST_ROW_BYTES / 1e9:.0f} GB")
            continue
        command = [str(plan.build / "learner_bench"), "--serve", "--rows", str(rows),
                   "--fill-batch", str(BATCH)]
        try:
            engine = Engine("sluice-f32", command, 1)
            try:
                answers = [engine.calm_slice(BATCH, plan.seconds) for _ in range(plan.slices)]
            finally:
                engine.stop()
        except Failed as error:
            print(f"{rows:12,}  left out: {error}")
            continue
        for answer in answers:
            calm.add(answer)
        about = engine.about
        result = {"rows": rows, "batch": BATCH, "threads": 1,
                  "samples_per_s": round(statistics.median(a["rate"] for a in answers)),
                  "bytes_a_row": about["bytes_a_row"],
                  "p99_ms": statistics.median(a["p99_ms"] for a in answers),
                  "longest_ms": max(a["longest_ms"] for a in answers),
                  "growing_median_ms": about["fill_median_ms"],
                  "growing_p99_ms": about["fill_p99_ms"],
                  "growing_longest_ms": about["fill_longest_ms"]}
        results.append(result)
        print(f"{rows:12,}{result['samples_per_s']:12,}{result['bytes_a_row']:11.0f}"
              f"{result['p99_ms']:9.1f}{result['longest_ms']:12.1f}"
              f"{result['growing_median_ms']:15.1f}{result['growing_p99_ms']:9.1f}"
              f"{result['growing_longest_ms']:9.1f}", flush=True)
    return results


class Neighbour:
    """A process that keeps one core busy until it is stopped."""

    CODE = ("import time\n"
            f"end = time.monotonic() + {BUSY_LIMIT_S}\n"
            "while time.monotonic() < end: pass")

    def __init__(self, core):
        self.process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), sys.executable, "-c", self.CODE])

    def __enter__(self):
        return self.process.pid

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def contended_engines(plan):
    for precision in PRECISIONS:
        yield f"sluice-{precision}", plan.sluice(precision)
    if plan.peers:
        yield "pytorch-expert-f32", plan.torch("expert", "f32")


def measure_contended(plan, calm):
    """Two threads, while a busy loop has one of their two cores and while it has not, in turns."""
    results = []
    print(f"{'2 threads, batch 1,024':24}{'alone':>12}{'contended':>12}{'ratio':>8}")
    core = min(cores_for(2))
    for name, command in contended_engines(plan):
        try:
            engine = Engine(name, command, 2)
        except (Failed, OSError) as error:
            print(f"{name:24}  left out: {error}")
            continue
        alone, contended = [], []
        try:
            for _ in range(plan.slices):
                answer = engine.calm_slice(BATCH, plan.seconds)
                calm.add(answer)
                alone.append(answer["rate"])
                with Neighbour(core) as pid:
                    contended.append(engine.slice(BATCH, plan.seconds, [pid])["rate"])
        except Failed as error:
            print(f"{name:24}  left out: {error}")
            continue
        finally:
            engine.stop()
        result = {"engine": name, "threads": 2, "batch": BATCH,
                  "alone": round(statistics.median(alone)),
                  "contended": round(statistics.median(contended))}
        result["ratio"] = round(result["contended"] / result["alone"], 3)
        results.append(result)
        print(f"{name:24}{result['alone']:12,}{result['contended']:12,}{result['ratio']:8.3f}",
              flush=True)
    return results


def shops(plan):
    """(name, config, prefixes of what a page's impressions share)."""
    folder = plan.build.parent / "bench-sharing"
    shutil.rmtree(folder, ignore_errors=True)
    impressions = 40_000 if plan.quick else 400_000
    subprocess.run([str(plan.build / "sluice"), "generate", "--out", str(folder), "--page", "20",
                    "--impressions", str(impressions), "--seed", "7"],
                   check=True, stdout=subprocess.DEVNULL)
    yield "generated", folder / "shop.toml", ["user_id", "features.user.", "features.context."]
    if plan.data and pathlib.Path(plan.data).is_file():
        yield "expedia", plan.data, ["features.user.", "features.query."]


def measure_shop(plan, calm, config, prefixes, precision):
    """(about, median rate apart, median rate grouped): the same samples, in turns."""
    command = [str(plan.build / "sharing_bench"), str(config), "--batch", str(BATCH),
               "--precision", precision]
    engines, rates = [], []
    try:
        for more in ([], ["--grouped", *prefixes]):
            engines.append(Engine("sharing", command + more, 1))
            rates.append([])
        for _ in range(plan.slices):
            for engine, its_rates in zip(engines, rates):
                answer = engine.calm_slice(BATCH, plan.seconds)
                calm.add(answer)
                its_rates.append(answer["rate"])
    finally:
        for engine in engines:
            engine.stop()
    return engines[-1].about, *(round(statistics.median(its_rates)) for its_rates in rates)


def measure_sharing(plan, calm):
    """Pages of impressions, with and without a group for what they share."""
    results = []
    print(f"{'logs, batch 1,024':20}{'samples':>10}{'shared':>10}{'':>6}{'apart':>12}{'grouped':>12}"
          f"{'ratio':>8}")
    for name, config, prefixes in shops(plan):
        for precision in PRECISIONS:
            try:
                about, apart, grouped = measure_shop(plan, calm, config, prefixes, precision)
            except Failed as error:
                print(f"{name:20}  left out: {error}")
                continue
            result = {"logs": name, "precision": precision, "batch": BATCH, "threads": 1,
                      "samples": about["samples"], "features": about["features"],
                      "shared_features": about["shared"], "apart": apart, "grouped": grouped,
                      "ratio": round(grouped / apart, 3)}
            results.append(result)
            shared = f"{about['shared']} of {about['features']}"
            print(f"{name:20}{about['samples']:10,}{shared:>10}{precision:>6}{apart:12,}"
                  f"{grouped:12,}{result['ratio']:8.3f}", flush=True)
    return results
