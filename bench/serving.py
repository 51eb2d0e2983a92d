"""How fast `sluice serve` answers on this machine's loopback: `./dev bench serving`.

    serving.py --build FOLDER [--seconds S] [--connections N] [--impressions N] [--json FILE]

A generated shop is learned from, its snapshots are served, and `wrk` asks for the scores of 1 and
of 100 impressions by both protocols, from connections that stay open. Then the same while another
snapshot is published every second. Client and server share the machine. An error ends it with 1.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))


def make_served(serving, folder, impressions):
    """The snapshots of a shop, and the folder they are published into one after the other."""
    config, data, model = serving.make_snapshots(folder, impressions, '"4 h"')
    snapshots = serving.snapshots_of(data, model)
    parent = serving.copy_snapshots(snapshots, folder / "m" / "snapshots")
    serving.set_latest(parent, snapshots[0].name)
    return config, [path.name for path in snapshots], parent


def wrk(server, folder, path, body, seconds, connections):
    script = folder / "request.lua"
    (folder / "body.json").write_text(body)
    script.write_text(
        f'local file = io.open("{folder / "body.json"}")\n'
        'wrk.method = "POST"\nwrk.body = file:read("*a")\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        "done = function(summary, latency)\n"
        '  io.write(string.format("JSON %f %f %f %d %d %d\\n", latency:percentile(50),\n'
        "    latency:percentile(99), latency:percentile(99.9), summary.requests, summary.duration,\n"
        "    summary.errors.status + summary.errors.connect + summary.errors.read +\n"
        "    summary.errors.write + summary.errors.timeout))\nend\n")
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, server.url + path],
        check=True, capture_output=True, text=True)
    p50, p99, p999, requests, micros, errors = map(
        float, re.search(r"JSON (.*)", done.stdout).group(1).split())
    return {"p50_ms": p50 / 1e3, "p99_ms": p99 / 1e3, "p999_ms": p999 / 1e3,
            "requests_per_s": requests / micros * 1e6, "errors": int(errors)}


class Swapper:
    """Publishes the next snapshot every second, round and round, while in a `with` block."""

    def __init__(self, serving, parent, names):
        self.serving, self.parent, self.names = serving, parent, names
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        at = 0
        while not self.ends.wait(1):
            at += 1
            self.serving.set_latest(self.parent, self.names[at % len(self.names)])

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    os.environ["SLUICE_BUILD"] = str(options.build.resolve())
    import serving

    folder = options.build.resolve() / "bench-serving"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config, names, parent = make_served(serving, folder, options.impressions)
    lines = serving.read_impressions(config, 100)
    results = []
    with serving.Server("--snapshots", parent).wait_ready() as server:
        for rows in (1, 100):
            chosen = [serving.row_of(line) for line in lines[:rows]]
            bodies = {
                "rows (v1)": ("/v1/models/m:predict", json.dumps({"instances": chosen})),
                "events (v1)": ("/v1/models/m:predict",
                                '{"instances": [' + ",".join(lines[:rows]) + "]}"),
                "tensors (v2)": ("/v2/models/m/infer",
                                 json.dumps({"inputs": serving.inputs_of(chosen)})),
            }
            for name, (path, body) in bodies.items():
                for is_swapping in (False, True):
                    before = server.metrics()['sluice_swaps_total{model="m"}']
                    ask = lambda: wrk(server, folder, path, body, options.seconds,
                                      options.connections)
                    if is_swapping:
                        with Swapper(serving, parent, names):
                            row = ask()
                    else:
                        row = ask()
                    row.update(form=name, rows=rows, swapping=is_swapping, swaps=int(
                        server.metrics()['sluice_swaps_total{model="m"}'] - before))
                    results.append(row)
                    print(f"{name:13} {rows:4} {'swaps ' + str(row['swaps']) if is_swapping else '':9}"
                          f" p50 {row['p50_ms']:7.3f} ms  p99 {row['p99_ms']:7.3f} ms  p99.9 "
                          f"{row['p999_ms']:7.3f} ms  {row['requests_per_s']:9,.0f} requests/s  "
                          f"{row['errors']} errors", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(row["errors"] for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
