"""Runs the unittest cases of every module in the folders given.

    run_python_tests.py [--counts FILE] [--failures FILE] FOLDER...

Prints one line a test, and at the end what failed. The one file gets "passed failed skipped", the
other the failed tests' names and what each said last. Exits with 1 when a test failed or a folder
holds none.
"""

import argparse
import os
import sys
import unittest


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts")
    parser.add_argument("--failures")
    parser.add_argument("folders", nargs="+")
    arguments = parser.parse_args()

    suite = unittest.TestSuite()
    empty = []
    for folder in arguments.folders:
        folder = os.path.abspath(folder)
        found = unittest.TestLoader().discover(folder, pattern="*.py", top_level_dir=folder)
        if found.countTestCases() == 0:
            empty.append(folder)
        suite.addTest(found)

    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result)
    result = runner.run(suite)
    for folder in empty:
        print(f"no test in {folder}")
    failed = len(result.failed) + len(empty)
    skipped = len(result.skipped)
    passed = result.testsRun - len(result.failed) - skipped
    if arguments.counts:
        with open(arguments.counts, "w", encoding="utf-8") as file:
            print(passed, failed, skipped, file=file)
    if arguments.failures:
        with open(arguments.failures, "w", encoding="utf-8") as file:
            for test, said in result.failures + result.errors:
                print(test.id(), *said.strip().splitlines()[-40:], sep="\n    ", file=file)
            for folder in empty:
                print(f"no test in {folder}", file=file)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
