"""Runs the unittest cases of every module in the folders given.

    run_python_tests.py [--jobs N] [--counts FILE] [--failures FILE] FOLDER...

Modules run in so many processes at a time, in the order of their names; what one has to say, a line
a test and what failed, comes when it ends. At the end: how long each took. The one file gets "passed
failed skipped", the other the failed tests' names and what each said last. Exits with 1 when a test
failed or a folder holds none.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path


class Result(unittest.TextTestResult):
    """Counts tests, not their subtests: a test passed when it and all its parts did."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.failed = set()

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.failed.add(test.id())

    def addError(self, test, err):
        super().addError(test, err)
        self.failed.add(test.id())

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.failed.add(test.id())

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.failed.add(test.id())


def last_lines(name, text):
    return "\n    ".join([name, *text.strip().splitlines()[-40:]])


def run_module(path, outcome):
    """In a process of its own; the outcome is a JSON file."""
    suite = unittest.TestLoader().discover(str(path.parent), pattern=path.name,
                                           top_level_dir=str(path.parent))
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result)
    result = runner.run(suite)
    outcome.write_text(json.dumps({
        "run": result.testsRun,
        "failed": len(result.failed),
        "skipped": len(result.skipped),
        "failures": [last_lines(test.id(), said) for test, said in result.failures + result.errors],
    }), encoding="utf-8")


def started(path, folder):
    """Runs a module as a process and returns its outcome, what it printed and how long it took."""
    outcome = Path(folder) / f"{path.parent.name}.{path.stem}.json"
    began = time.monotonic()
    done = subprocess.run([sys.executable, __file__, "--module", path, "--outcome", outcome],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    seconds = time.monotonic() - began
    if outcome.exists():
        return json.loads(outcome.read_text(encoding="utf-8")), done.stdout, seconds
    lost = {"run": 1, "failed": 1, "skipped": 0, "failures": [
        last_lines(f"{path.stem} ended with {done.returncode}", done.stdout)]}
    return lost, done.stdout, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--counts", type=Path)
    parser.add_argument("--failures", type=Path)
    parser.add_argument("--module", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--outcome", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("folders", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.module:
        run_module(arguments.module.resolve(), arguments.outcome)
        return 0

    run, failed, skipped = 0, 0, 0
    failures, seconds = [], {}
    paths = [path.resolve() for folder in arguments.folders for path in sorted(folder.glob("*.py"))]
    tests_in = dict.fromkeys((folder.resolve() for folder in arguments.folders), 0)
    with tempfile.TemporaryDirectory() as folder:
        pool = concurrent.futures.ThreadPoolExecutor(arguments.jobs)
        running = {pool.submit(started, path, folder): path for path in paths}
        try:
            for future in concurrent.futures.as_completed(running):
                path = running[future]
                outcome, said, seconds[path.stem] = future.result()
                if outcome["run"] == 0:
                    continue  # what others import
                print(f"---- {path.stem}\n{said}", flush=True)
                tests_in[path.parent] += outcome["run"]
                run += outcome["run"]
                failed += outcome["failed"]
                skipped += outcome["skipped"]
                failures += outcome["failures"]
        finally:
            pool.shutdown(cancel_futures=True)
    for name, took in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"{took:8.1f} s {name}")
    empty = [f"no test in {folder}" for folder, tests in tests_in.items() if tests == 0]
    failures += empty
    if failures:
        print("failed:", *failures, sep="\n")
    if arguments.counts:
        passed = run - failed - skipped
        arguments.counts.write_text(f"{passed} {failed + len(empty)} {skipped}\n")
    if arguments.failures:
        arguments.failures.write_text("".join(f"{line}\n" for line in failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
