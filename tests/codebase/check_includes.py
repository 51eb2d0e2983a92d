"""Checks of the code base itself: which folder may include what, and where a call may stand."""

import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Folder -> the folders that it may include, itself among them (docs/design.md, "Folders").
BASE = {"base"}
CONFIG = BASE | {"config"}
INGEST = CONFIG | {"ingest"}
STORE = CONFIG | {"store"}
JOINER = INGEST | STORE | {"joiner"}
LEARNER = JOINER | {"learner"}
SERVING = LEARNER | {"serving"}
APP = SERVING | {"app"}
MAY_INCLUDE = {
    "base": BASE, "config": CONFIG, "ingest": INGEST, "store": STORE, "joiner": JOINER,
    "learner": LEARNER, "serving": SERVING, "app": APP, "bench": APP | {"bench"},
}

# A library's headers -> the folders that may include them.
LIBRARY_FOLDERS = {
    r"rocksdb/|store/rocksdb_store\.h": {"store", "tests/store"},
    r"librdkafka/": {"ingest", "tests/ingest", "tests/broker"},
    r"(oneapi/)?dnnl": {"bench"},
    # Events, and the requests of those who want them scored.
    r"simdjson": {"ingest", "serving", "tests/ingest", "bench"},
    r"httplib|prometheus/": {"serving"},
    r"openssl/": {"serving", "tests/serving"},
    r"toml\+\+/": {"config", "tests/config"},
    r"spdlog/": {"app", "tests/simulation", "tests/fuzz"},
    r"CLI/": {"app", "tests/app", "tests/broker", "tests/simulation", "bench"},
    r"(zstd|zlib)\.h": {"base", "ingest", "app", "tests/ingest", "tests/app"},
}

# A library's header -> the one file that may include it, as its types are nobody else's business.
LIBRARY_FILES = {"httplib.h": "serving/http_exchange.cc"}

# A call -> the files that may hold it, and why only these. Tests may do as they like.
BANNED_CALLS = {
    # Time is read and waited for through the clock edge.
    r"\b(system_clock|steady_clock|high_resolution_clock)\b": {"base/time.cc"},
    r"\b(gettimeofday|clock_gettime)\s*\(|\btime\s*\(\s*(NULL|nullptr|0)\s*\)": {"base/time.cc"},
    r"\b(sleep_for|sleep_until|usleep|nanosleep)\b|(?<![\w.>])sleep\s*\(": {"base/time.cc"},
    # Each stage belongs to one thread: there are computing lanes, the service's two, the prober, and
    # the one that writes snapshots; of serving those that answer, that look for new versions and
    # that write the log.
    r"\bstd::j?thread\b(?!::hardware_concurrency)|\bstd::async\b|\bpthread_create\b": {
        "base/lanes.cc", "app/background.cc", "app/service.cc", "ingest/kafka_prober.h",
        "serving/http_server.cc", "app/serving.cc", "serving/prediction_log.h",
        "serving/prediction_log.cc"},
    # Random numbers are functions of a seed that is named, equal with every standard library.
    r"\b(s?rand|drand48)\s*\(|\brandom\s*\(\s*\)|\brandom_device\b|"
    r"\b(uniform_(int|real)|normal|bernoulli|poisson|lognormal)_distribution\b": set(),
    # The order of floating-point operations is fixed.
    r"-ffast-math|\bstd::execution\b|\bstd::reduce\b": set(),
    # Errors are values, and what a program finds wrong with itself stops release builds too.
    r"(?<![\w_])throw\s+[\w:]+|(?<![\w_])assert\s*\(": set(),
}

# Words for which the field has others (docs/design.md, "Words"), and what belongs in no repository.
BANNED_WORDS = {
    r"/wor[k]/|/roo[t]/": "a path of one machine",
    r"(?i)\b(todo|fixme|xxx)\b": "an open end",
}


def tracked_files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def cpp_files():
    return [path for path in tracked_files() if path.suffix in (".h", ".cc")]


def folder_of(path):
    """"ingest", or for tests "tests/ingest"."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "tests" else parts[0]


def without_comments_and_texts(source):
    """C++ with comments and literals emptied, line by line as before."""
    pattern = r'//[^\n]*|/\*.*?\*/|R"\((?:.*?)\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
    return re.sub(pattern, lambda found: "\n" * found.group().count("\n"), source, flags=re.DOTALL)


def includes(source):
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', source, flags=re.MULTILINE)


class CodebaseTest(unittest.TestCase):
    def problems_in(self, find):
        """Runs find(path, text), which yields problems, over all C++ files."""
        files = cpp_files()
        self.assertGreater(len(files), 50, "the sources were not found")
        problems = []
        for path in files:
            for problem in find(path, path.read_text(encoding="utf-8")):
                problems.append(f"{path.relative_to(ROOT)}: {problem}")
        return problems

    def check(self, find):
        problems = self.problems_in(find)
        self.assertEqual([], problems, "\n" + "\n".join(problems))

    def test_includes_follow_the_data(self):
        def find(path, text):
            folder = folder_of(path)
            allowed = MAY_INCLUDE.get(folder)
            if allowed is None:
                return
            for _, name in includes(text):
                target = name.split("/")[0]
                if target in MAY_INCLUDE and "/" in name and target not in allowed:
                    yield f"{folder}/ may not include {name}"
                if target == "tests":
                    yield f"the program may not include {name}"

        self.check(find)

    def test_libraries_stay_in_their_folders(self):
        def find(path, text):
            for _, name in includes(text):
                for pattern, folders in LIBRARY_FOLDERS.items():
                    if re.match(pattern, name) and folder_of(path) not in folders:
                        yield f"{name} belongs to {', '.join(sorted(folders))}"
                if LIBRARY_FILES.get(name, str(path.relative_to(ROOT))) != str(path.relative_to(ROOT)):
                    yield f"{name} belongs to {LIBRARY_FILES[name]}"

        self.check(find)

    def test_own_headers_are_included_by_their_path_and_exist(self):
        def find(path, text):
            for mark, name in includes(text):
                if mark != '"' or (ROOT / name).is_file():
                    continue
                is_helper = folder_of(path).startswith("tests") and (path.parent / name).is_file()
                if not is_helper:
                    yield f'"{name}" is no path from the top'

        self.check(find)

    def test_headers_are_included_once(self):
        def find(path, text):
            if path.suffix == ".h" and "#pragma once" not in text:
                yield "no #pragma once"

        self.check(find)

    def test_calls_stand_in_their_one_file(self):
        def find(path, text):
            name = str(path.relative_to(ROOT))
            if folder_of(path).startswith("tests") or folder_of(path) == "bench":
                return
            for number, line in enumerate(without_comments_and_texts(text).split("\n"), 1):
                for pattern, files in BANNED_CALLS.items():
                    if name not in files and re.search(pattern, line):
                        yield f"line {number}: {line.strip()}"

        self.check(find)

    def test_exceptions_of_the_call_rules_are_in_use(self):
        for pattern, files in BANNED_CALLS.items():
            for name in files:
                source = without_comments_and_texts((ROOT / name).read_text(encoding="utf-8"))
                if pattern.startswith(r"\b(gettimeofday"):
                    continue  # the file may use either kind of clock
                self.assertRegex(source, pattern, f"{name} no longer needs its exception")

    def test_every_test_file_is_built(self):
        """CMake takes tests/<folder>/*.cc of the folders it names, and what the CMakeLists.txt of
        others name: nothing else would ever run."""
        cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
        built = re.search(r"foreach\(folder ([\w ]+)\)", cmake).group(1).split()
        for path in cpp_files():
            parts = path.relative_to(ROOT).parts
            if parts[0] != "tests" or not path.name.endswith("_test.cc"):
                continue
            with self.subTest(path=str(path)):
                self.assertEqual(3, len(parts))
                own = path.parent / "CMakeLists.txt"
                if own.exists() and f"add_subdirectory(tests/{parts[1]})" in cmake:
                    self.assertIn(path.name, own.read_text(encoding="utf-8"))
                else:
                    self.assertIn(parts[1], built)
                self.assertRegex(path.read_text(encoding="utf-8"), r"\b(TEST|TEST_F|TEST_P|RC_GTEST\w*)\(")

    def test_words_that_belong_nowhere(self):
        problems = []
        for path in tracked_files():
            if path == pathlib.Path(__file__).resolve() or path.suffix in (".zst", ".gz", ".bin"):
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            for number, line in enumerate(text.split("\n"), 1):
                for pattern, reason in BANNED_WORDS.items():
                    if re.search(pattern, line):
                        problems.append(f"{path.relative_to(ROOT)}:{number}: {reason}: {line.strip()}")
        self.assertEqual([], problems, "\n" + "\n".join(problems))


if __name__ == "__main__":
    unittest.main()
