"""Checks docs/reliability.md: every fault in its tables names a test, and that test exists."""

import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
COLUMNS = 5  # fault, what a user sees, what is guaranteed, shown by, runs
LEAST_FAULTS = 40

GTEST = re.compile(r"\b(?:TEST|TEST_F|TEST_P|RC_GTEST_PROP|RC_GTEST_FIXTURE_PROP)"
                   r"\(\s*(\w+)\s*,\s*(\w+)")
PYTHON_TEST = re.compile(r"^    def (test_\w+)\(", flags=re.MULTILINE)


def faults():
    """The rows of every table with the five columns, as lists of their cells."""
    rows = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        is_row = len(cells) == COLUMNS and not set("".join(cells)) <= set("-: ")
        if is_row and cells[0] != "fault":
            rows.append(cells)
    return rows


def gtests():
    names = set()
    for path in (ROOT / "tests").rglob("*.cc"):
        names.update(".".join(found) for found in GTEST.findall(path.read_text(encoding="utf-8")))
    return names


def python_tests():
    names = set()
    for path in (ROOT / "tests" / "e2e").glob("*.py"):
        for test in PYTHON_TEST.findall(path.read_text(encoding="utf-8")):
            names.add(f"{path.name}:{test}")
    return names


def simulated_faults():
    """The names under which the simulator counts what it injects."""
    text = (ROOT / "tests" / "simulation" / "faults.cc").read_text(encoding="utf-8")
    return set(re.findall(r'^    \{"(\w+)", "', text, flags=re.MULTILINE))


class ReliabilityTest(unittest.TestCase):
    def test_there_are_enough_distinct_faults(self):
        names = [row[0] for row in faults()]
        self.assertGreaterEqual(len(names), LEAST_FAULTS)
        self.assertEqual(len(names), len(set(names)), "a fault stands twice")

    def test_every_cell_says_something(self):
        for row in faults():
            with self.subTest(fault=row[0]):
                self.assertNotIn("", row)

    def test_every_named_test_exists(self):
        known = gtests() | python_tests()
        simulated = simulated_faults()
        for row in faults():
            with self.subTest(fault=row[0]):
                named = re.findall(r"`([^`]+)`", row[3])
                self.assertTrue(named, "no test is named")
                for name in named:
                    if name.startswith("simulation: "):
                        self.assertIn(name.removeprefix("simulation: "), simulated)
                    else:
                        self.assertIn(name, known)

    def test_every_mutation_applies_and_is_in_the_table(self):
        page = PAGE.read_text(encoding="utf-8")
        patches = sorted((ROOT / "tests" / "simulation" / "mutations").glob("*.patch"))
        self.assertGreaterEqual(len(patches), 5)
        for path in patches:
            with self.subTest(mutation=path.stem):
                bug = path.read_text(encoding="utf-8").splitlines()[0].rstrip(".")
                self.assertIn(f"| {bug} |", page)
                done = subprocess.run(["patch", "-p1", "--dry-run", "-s", "-i", path], cwd=ROOT,
                                      capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
