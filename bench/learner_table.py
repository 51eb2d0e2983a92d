"""The learner beside the bare matrix products and PyTorch: one table, one run, one machine.

    learner_table.py --build FOLDER [--json FILE] [--peers PYTHON] [--quick]
                     [--rows | --sharing | --contended] [--data FOLDER]

Engines take turns, slice by slice. A figure is the median of its slices.
"""

import argparse
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench import learner_more  # noqa: E402
from bench.engines import Calm, Engine, Failed, available_bytes, write_json  # noqa: E402

TORCH = pathlib.Path(__file__).resolve().parent / "peers" / "torch" / "esmm_bench.py"
THREADS = (1, 2)
# A row's memory at most, for a guess whether an engine fits: PyTorch's three tables, and what a
# step needs beside them; the learner's with its index.
TORCH_ROW_BYTES = 320
SLUICE_ROW_BYTES = learner_more.MOST_ROW_BYTES
SPARE_BYTES = 2 << 30


class Plan:
    """How much is measured."""

    def __init__(self, arguments):
        self.build = pathlib.Path(arguments.build)
        self.peers = arguments.peers
        self.data = arguments.data
        self.quick = arguments.quick
        self.rows = 1_000_000 if self.quick else 20_000_000
        self.batches = (256, 1024) if self.quick else (256, 512, 1024, 4096)
        self.slices = 3 if self.quick else 5
        self.seconds = 0.2 if self.quick else 0.7

    def sluice(self, precision):
        return [str(self.build / "learner_bench"), "--serve", "--precision", precision,
                "--rows", str(self.rows)]

    def torch(self, engine, precision, *more):
        return [self.peers, str(TORCH), engine, "--precision", precision, "--rows",
                str(self.rows), *more]

    def commands(self, precision):
        """(engine, variant, command) of one precision. The learner comes first: it is what has to
        be beside the others where they do not fit into memory all at once."""
        yield f"sluice-{precision}", "", self.sluice(precision)
        yield (f"roofline-{precision}", "",
               [str(self.build / "roofline_bench"), "--precision", precision])
        if self.peers:
            expert = f"pytorch-expert-{precision}"
            yield expert, "eager", self.torch("expert", precision)
            yield expert, "compiled", self.torch("expert", precision, "--compile")
            yield f"pytorch-{precision}", "", self.torch("ordinary", precision)

    def fits(self, name):
        row_bytes = {"pytorch": TORCH_ROW_BYTES, "sluice": SLUICE_ROW_BYTES}
        needed = self.rows * row_bytes.get(name.split("-")[0], 0)
        return available_bytes() > needed + SPARE_BYTES

    def groups(self):
        """Engines that should take turns: those of one precision with PyTorch, else all."""
        groups = [list(self.commands(precision)) for precision in learner_more.PRECISIONS]
        return groups if self.peers else [sum(groups, [])]


def note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def start_some(plan, waiting, threads):
    """Takes engines from the front of `waiting` and starts them, as many as fit into memory."""
    started = []
    while waiting and (not started or plan.fits(waiting[0][0])):
        name, variant, command = waiting.pop(0)
        note(f"starting {name} {variant}".rstrip() + f", {threads} thread(s)")
        try:
            started.append(Engine(name, command, threads, variant))
        except (Failed, OSError) as error:
            note(f"left out: {error}")
    return started


def measure_group(plan, engines, calm):
    """[(engine, batch, rates)], the engines taking turns."""
    got = {}
    for batch in plan.batches:
        for _ in range(plan.slices):
            for engine in list(engines):
                try:
                    answer = engine.calm_slice(batch, plan.seconds)
                except Failed as error:  # the others' figures stand
                    note(f"left out from batch {batch} on: {error}")
                    engine.stop()
                    engines.remove(engine)
                    continue
                calm.add(answer)
                got.setdefault((engine, batch), []).append(answer)
        note(f"batch {batch} done")
    return got


def row_of(engine, batch, answers):
    rates = [answer["rate"] for answer in answers]
    row = {"engine": engine.name, "threads": engine.threads, "batch": batch,
           "samples_per_s": round(statistics.median(rates)), "min": round(min(rates)),
           "max": round(max(rates)), "slices": len(rates),
           "others_percent": round(100 * max(answer["others"] for answer in answers), 1)}
    if engine.variant:
        row["variant"] = engine.variant
    return row


def best_variants(rows):
    """An engine that was tried in several ways is as good as its best way."""
    best = {}
    for row in rows:
        key = (row["engine"], row["threads"], row["batch"])
        if key not in best or row["samples_per_s"] > best[key]["samples_per_s"]:
            best[key] = row
    return list(best.values())


def measure(plan, calm):
    rows, about = [], {}
    for threads in THREADS:
        for waiting in plan.groups():
            while waiting:
                engines = start_some(plan, waiting, threads)
                try:
                    for (engine, batch), answers in measure_group(plan, engines, calm).items():
                        rows.append(row_of(engine, batch, answers))
                        about[engine.name] = engine.about
                finally:
                    for engine in engines:
                        engine.stop()
    return best_variants(rows), about


def print_table(plan, rows):
    rates = {(row["engine"], row["threads"], row["batch"]): row for row in rows}
    names = list(dict.fromkeys(row["engine"] for row in rows))
    head = "".join(f"{batch:>22,}" for batch in plan.batches)
    print("thousand samples/s, median (min - max)")
    for threads in THREADS:
        print(f"\n{f'{threads} thread(s), batch':22}{head}")
        for name in names:
            cells = (rates.get((name, threads, batch)) for batch in plan.batches)
            texts = ("-" if row is None else
                     f"{row['samples_per_s'] / 1e3:.1f} ({row['min'] / 1e3:.1f} - "
                     f"{row['max'] / 1e3:.1f})" for row in cells)
            print(f"{name:22}" + "".join(f"{text:>22}" for text in texts))

    def rate(name, threads, batch):
        row = rates.get((name, threads, batch))
        return row["samples_per_s"] if row else None

    print(f"\n{'ratios, batch':42}" + "".join(f"{batch:>10,}" for batch in plan.batches))
    for label, above, below in ratios(names):
        cells = []
        for batch in plan.batches:
            one, other = rate(*above, batch), rate(*below, batch)
            cells.append(f"{one / other:10.2f}" if one and other else f"{'-':>10}")
        if any(cell.strip() != "-" for cell in cells):
            print(f"{label:42}" + "".join(cells))


def ratios(names):
    """(label, (engine, threads), (engine, threads)) of the ratios worth reading."""
    for threads in THREADS:
        for precision in learner_more.PRECISIONS:
            own = (f"sluice-{precision}", threads)
            for other in ("roofline", "pytorch-expert", "pytorch"):
                yield (f"{own[0]} / {other}-{precision}, {threads} thread(s)", own,
                       (f"{other}-{precision}", threads))
        yield (f"sluice-bf16 / sluice-f32, {threads} thread(s)", ("sluice-bf16", threads),
               ("sluice-f32", threads))
    for name in names:
        yield f"{name}, 2 threads / 1", (name, 2), (name, 1)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     prog="./dev bench learner")
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="the figures, for programs")
    parser.add_argument("--peers", metavar="PYTHON", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true",
                        help="less of everything, to see that it works")
    parser.add_argument("--data", default="", help=argparse.SUPPRESS)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--rows", action="store_true",
                      help="tables of 1, 10 and 50 million rows: rate, memory, pauses")
    mode.add_argument("--sharing", action="store_true",
                      help="impressions that share features, with and without groups")
    mode.add_argument("--contended", action="store_true",
                      help="while another process takes one core")
    return parser.parse_args()


def main():
    arguments = parse()
    plan = Plan(arguments)
    calm = Calm()
    result = {"rows": []}
    if arguments.rows:
        result["tables"] = learner_more.measure_rows(plan, calm)
    elif arguments.sharing:
        result["sharing"] = learner_more.measure_sharing(plan, calm)
    elif arguments.contended:
        result["contended"] = learner_more.measure_contended(plan, calm)
    else:
        result["rows"], result["engines"] = measure(plan, calm)
        print_table(plan, result["rows"])
    result.update(quick=plan.quick, table_rows=plan.rows)
    print("\n" + calm.text())
    write_json(arguments.json, result, calm)


if __name__ == "__main__":
    main()
