"""Damage in the logs: a bad record is counted and put aside, the good ones give the same bits; a bad
file stops the replay with one line, and the repaired one goes on as if nothing had been."""

import gzip
import json
import random
import subprocess

import sluice

SEED = 21
STREAMS = ("impressions", "clicks", "purchases")
TIME = 1704100000000  # within the shop's two days
RECORD = b'{"ts":%d,"impression_id":"bad","x":' % TIME
DEPTH = 100000
LONG = 100 << 20
# What a replay of the small shop needs, with room: without the long line it takes some 60 MiB.
MEMORY_MIB = 160

# One line each; none holds a line end.
MALFORMED = {
    "random bytes": lambda draw: bytes(b for b in draw.randbytes(500) if b != 10),
    "nested too deep": lambda _: RECORD + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "nested too deep, objects": lambda _: RECORD + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b"}",
    "brackets without end": lambda _: b"[" * DEPTH,
    "invalid UTF-8": lambda _: RECORD + b'"\xff\xfe"}',
    "UTF-8 cut short": lambda _: RECORD + b'"\xe2\x82"}',
    "UTF-8 longer than needed": lambda _: RECORD + b'"\xc0\xaf"}',
    "UTF-8 of a surrogate": lambda _: RECORD + b'"\xed\xa0\x80"}',
    "NaN": lambda _: RECORD + b"NaN}",
    "Infinity": lambda _: RECORD + b"-Infinity}",
    "a number out of range": lambda _: RECORD + b"1e400}",
    "an integer beyond 64 bits": lambda _: RECORD + b"18446744073709551616}",
    "a zero byte at the end": lambda _: RECORD + b"1}\0",
    "a zero byte in a text": lambda _: RECORD + b'"a\0b"}',
    "a byte order mark": lambda _: b"\xef\xbb\xbf" + RECORD + b"1}",
    "a lone surrogate": lambda _: RECORD + b'"\\ud800"}',
    "a lone low surrogate": lambda _: RECORD + b'"\\udc00x"}',
    "an empty line": lambda _: b"",
    "blanks": lambda _: b"  \t ",
    "cut in the middle": lambda _: RECORD + b'"a',
    "two records in a line": lambda _: (RECORD + b"1}") * 2,
    "in a list": lambda _: b"[" + RECORD + b"1}]",
    "null": lambda _: b"null",
    "a comma too many": lambda _: RECORD + b"1,}",
    "ts as a text": lambda _: b'{"ts":"%d","impression_id":"bad"}' % TIME,
    "ts as a real": lambda _: b'{"ts":%d.0,"impression_id":"bad"}' % TIME,
    "ts is null": lambda _: b'{"ts":null,"impression_id":"bad"}',
    "ts in a list": lambda _: b'{"ts":[%d],"impression_id":"bad"}' % TIME,
    "no ts": lambda _: b'{"impression_id":"bad"}',
    "no id": lambda _: b'{"ts":%d}' % TIME,
    "an empty id": lambda _: b'{"ts":%d,"impression_id":""}' % TIME,
    "an id that is a real": lambda _: b'{"ts":%d,"impression_id":1.5}' % TIME,
    "an id that is an object": lambda _: b'{"ts":%d,"impression_id":{"a":1}}' % TIME,
    "an id that is true": lambda _: b'{"ts":%d,"impression_id":true}' % TIME,
}


class DataFaults(sluice.Case):
    def setUp(self):
        super().setUp()
        self.logs = self.folder / "shop"
        self.config = sluice.generate(self.logs, "--impressions", 6000, "--seed", 3)
        self.texts = {path: path.read_bytes() for path in sorted(self.logs.glob("*/*.jsonl"))}
        self.expected = self.replay(self.config, "undisturbed")

    def restore(self):
        for path, text in self.texts.items():
            path.write_bytes(text)

    def change_lines(self, change):
        """change(stream, line) gives the line that takes its place, or None to drop it."""
        for path, text in self.texts.items():
            lines = [change(path.parent.name, line) for line in text.splitlines()]
            path.write_bytes(b"".join(line + b"\n" for line in lines if line is not None))

    def insert_lines(self, make, draw, count=3):
        """`count` bad lines into each log, at places drawn; gives them."""
        bad = []
        for path, text in self.texts.items():
            lines = text.splitlines(keepends=True)
            for _ in range(count):
                bad.append(make(draw))
                lines.insert(draw.randrange(len(lines) + 1), bad[-1] + b"\n")
            path.write_bytes(b"".join(lines))
        return bad

    def assert_dead_letters(self, name, reason, lines):
        """The newest one and its bytes, and each with why."""
        words = [sluice.BINARY, "dead-letters", "list", "--data-dir", self.folder / name,
                 "--reason", reason, "--limit", 0, "--json"]
        done = sluice.call(words)
        self.assertEqual(done.returncode, 0, done.stderr)
        listed = json.loads(done.stdout)["dead_letters"]
        self.assertEqual(len(listed), len(lines))
        self.assertTrue(all(letter["detail"] for letter in listed), listed)
        done = subprocess.run(
            [str(sluice.BINARY), "dead-letters", "show", "--data-dir", str(self.folder / name),
             str(listed[0]["number"]), "--raw"], capture_output=True, check=True)
        self.assertIn(done.stdout, lines)

    def assert_same_samples(self, report):
        for key in ("samples_digest", "model_digest", "labels", "samples", "used", "metrics"):
            self.assertEqual(report[key], self.expected[key], key)
        self.assert_adds_up(report)

    def assert_refused(self, report, reason, count):
        for other, refused in self.expected["refused"].items():
            more = count if other == reason else 0
            self.assertEqual(report["refused"][other], refused + more, other)
        self.assertEqual(report["dead_letters"]["kept"],
                         self.expected["dead_letters"]["kept"] + count)

    @sluice.slow
    def test_bad_lines_are_put_aside_and_change_nothing(self):
        draw = random.Random(SEED)
        for number, (kind, make) in enumerate(MALFORMED.items()):
            with self.subTest(kind, seed=SEED):
                bad = self.insert_lines(make, draw)
                report = self.replay(self.config, f"bad-{number}")
                self.assert_refused(report, "malformed", len(bad))
                self.assert_same_samples(report)
                self.assert_dead_letters(f"bad-{number}", "malformed", bad)
        self.restore()
        self.assert_same(self.replay(self.config, "restored"), self.expected)

    def test_what_is_no_damage_counts_as_it_stands(self):
        """Other line ends, fields that stand twice, and fields that nobody asked for."""
        kinds = {
            "CRLF": lambda _, line: line + b"\r",
            # The first one counts.
            "fields twice": lambda _, line: line[:-1] + b',"ts":1,"impression_id":7,"user_id":0,'
                                                        b'"features":{"position":99}}',
            "blanks": lambda _, line: b"\t " + line.replace(b'":', b'" : ') + b"  ",
            "other fields": lambda _, line: b'{"a":{"ts":1,"b":[1,{"ts":2}]},"\\u0000":"\\ud83d\\ude00",'
                                            + line[1:],
        }
        for number, (kind, change) in enumerate(kinds.items()):
            with self.subTest(kind):
                self.change_lines(change)
                report = self.replay(self.config, f"same-{number}")
                self.assert_same(report, self.expected)

    def test_a_byte_order_mark_costs_the_record_behind_it(self):
        first = {path: text.split(b"\n", 1)[0] for path, text in self.texts.items()}
        for path, text in self.texts.items():
            path.write_bytes(b"\xef\xbb\xbf" + text)
        marked = self.replay(self.config, "marked")
        self.assertEqual(marked["refused"]["malformed"], len(first))
        for path, text in self.texts.items():
            path.write_bytes(text[len(first[path]) + 1:])
        without = self.replay(self.config, "without")
        for key in ("samples_digest", "model_digest", "labels"):
            self.assertEqual(marked[key], without[key], key)
        self.assert_adds_up(marked)

    def test_features_of_wrong_types_count_as_absent(self):
        number = [0]

        def spoil(stream, line):
            if stream != "impressions":
                return line
            number[0] += 1
            record = json.loads(line)
            if number[0] % 3 == 0:
                record["features"]["item"]["price"] = ["12"]
                record["features"]["user"] = 5
            elif number[0] % 3 == 1:
                record["features"]["item"]["price"] = random.Random(number[0]).choice(
                    [1.7e308, -1.7e308, 5e-324, 0, -0.0, 2**64 - 1, -2**63])
            return json.dumps(record).encode()
        self.change_lines(spoil)
        report = self.replay(self.config, "spoilt")
        self.assertEqual(report["samples_digest"], self.expected["samples_digest"])
        self.assertEqual(report["refused"], self.expected["refused"])
        self.assertEqual(report["wrong_types"]["price"], sum(
            1 for n in range(number[0]) if (n + 1) % 3 == 0))
        self.assertEqual(report["wrong_types"]["segment"], 0)  # `user` is no object: absent
        for name, metrics in report["metrics"].items():
            if name != "second_half":
                self.assertIsNotNone(metrics["log_loss"], name)  # a NaN would be null

    @sluice.not_sanitized
    def test_a_line_of_100_mb_takes_no_memory(self):
        """Refused as oversized, by its first bytes; both in the middle and at the unfinished end."""
        paths = list(self.texts)
        middle, end = paths[0], paths[-1]
        lines = self.texts[middle].splitlines(keepends=True)
        chunk = b'"' + b"x" * (1 << 20)
        with middle.open("wb") as file:
            file.writelines(lines[:len(lines) // 2])
            for _ in range(LONG // len(chunk) + 1):
                file.write(chunk)
            file.write(b"\n")
            file.writelines(lines[len(lines) // 2:])
        with end.open("ab") as file:
            for _ in range(LONG // len(chunk) + 1):
                file.write(chunk)
        report, peak_mib = self.replay_and_measure("long")
        self.assert_refused(report, "oversized", 2)
        self.assert_same_samples(report)
        self.assertLess(peak_mib, MEMORY_MIB)

    def replay_and_measure(self, name):
        report = self.folder / f"{name}.json"
        code, errors, peak = sluice.call_and_measure(sluice.command(
            "replay", self.config, self.folder / name, None, "--report", report))
        self.assertEqual(code, 0, errors)
        return json.loads(report.read_text()), peak / 2**20

    @sluice.not_sanitized
    def test_many_large_bad_records_take_no_memory(self):
        """Dead letters are written as they come, whatever the commit's other limits are."""
        path = list(self.texts)[0]
        line = b"x" * 900000 + b"\n"  # under max_record_bytes: kept whole
        with path.open("wb") as file:
            for _ in range(400):
                file.write(line)
            file.write(self.texts[path])
        report = self.folder / "many.json"
        code, errors, peak = sluice.call_and_measure(sluice.command(
            "replay", self.config, self.folder / "many",
            {"store.commit_interval": '"1 h"', "store.memtable_bytes": '"8 MiB"'},
            "--report", report))
        self.assertEqual(code, 0, errors)
        report = json.loads(report.read_text())
        self.assert_refused(report, "malformed", 400)
        self.assert_same_samples(report)
        self.assertLess(peak / 2**20, MEMORY_MIB)


class FileFaults(sluice.Case):
    """Files that are damaged as a whole, on the same shop."""

    def setUp(self):
        super().setUp()
        self.logs = self.folder / "shop"
        self.config = sluice.generate(self.logs, "--impressions", 6000, "--seed", 3,
                                      "--segments", 3)
        self.expected = self.replay(self.config, "undisturbed")
        self.segments = sorted((self.logs / "impressions" / "00001").glob("*.jsonl"))
        self.assertEqual(len(self.segments), 3)

    def fails(self, name, *needles, code=1):
        done = self.replay(self.config, name, expect=code)
        lines = [line for line in done.stderr.splitlines() if line.startswith("sluice: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        for needle in needles:
            self.assertIn(needle, lines[0])

    def compressed(self, path, kind):
        text = path.read_bytes()
        path.unlink()
        if kind == "gz":
            return path.with_suffix(".jsonl.gz"), gzip.compress(text, mtime=0)
        done = subprocess.run(["zstd", "-cq"], input=text, capture_output=True, check=True)
        return path.with_suffix(".jsonl.zst"), done.stdout

    @sluice.slow
    def test_damaged_compressed_segments(self):
        """Each kind of damage stops it with the file's name; the whole file lets it go on."""
        second = self.segments[1]
        text = second.read_bytes()
        for kind in ("zst", "gz"):
            path, whole = self.compressed(second, kind)
            half = len(whole) // 2
            damages = {
                "cut in the middle": (whole[:half], "cut short"),
                "cut before its last byte": (whole[:-1], "cut short"),
                "garbage after it": (whole + b"garbage, not a frame", "no valid"),
                "something else": (b"x" * 100, "no valid"),
            }
            for number, (damage, (damaged, needle)) in enumerate(damages.items()):
                with self.subTest(kind=kind, damage=damage):
                    path.write_bytes(damaged)
                    name = f"{kind}-{number}"
                    self.fails(name, path.name, needle)
                    self.fails(name, path.name, needle)
                    path.write_bytes(whole)
                    self.assert_same(self.replay(self.config, name), self.expected)
            path.unlink()
            second.write_bytes(text)

    def test_a_flipped_bit_in_a_compressed_segment(self):
        """It is found, or it lies where the format means nothing by it: never other records."""
        draw = random.Random(SEED)
        for kind in ("zst", "gz"):
            path, whole = self.compressed(self.segments[1], kind)
            for number in range(6):
                with self.subTest(kind=kind, number=number, seed=SEED):
                    damaged = bytearray(whole)
                    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
                    path.write_bytes(damaged)
                    report = self.folder / f"{kind}-{number}.json"
                    done = sluice.call(sluice.command(
                        "replay", self.config, self.folder / f"{kind}-{number}", None, "--report",
                        report))
                    self.assertIn(done.returncode, (0, 1), done.stderr)
                    if done.returncode == 1:
                        self.assertIn(path.name, done.stderr)
                    else:
                        self.assert_same(json.loads(report.read_text()), self.expected)
            path.unlink()
            self.segments[1].write_bytes(
                gzip.decompress(whole) if kind == "gz" else subprocess.run(
                    ["zstd", "-dcq"], input=whole, capture_output=True, check=True).stdout)
        self.assert_same(self.replay(self.config, "again"), self.expected)

    def test_a_segment_that_was_never_there(self):
        """Numbers may leave gaps: it is the log without it, and its clicks find no impression."""
        hidden = self.segments[1].rename(self.folder / "hidden")
        impressions = hidden.read_bytes().count(b"\n")
        report = self.replay(self.config, "without")
        self.assertEqual(report["events"]["impressions"],
                         self.expected["events"]["impressions"] - impressions)
        self.assertGreater(report["refused"]["no_open_impression"],
                           self.expected["refused"]["no_open_impression"])
        self.assert_adds_up(report)
        # Put back behind the reader's back: other logs than those of this folder.
        hidden.rename(self.segments[1])
        self.assertNotEqual(report["samples_digest"], self.expected["samples_digest"])

    def test_a_segment_that_is_gone_while_it_is_read(self):
        """Begun and then lost: a restart says so and does not go on behind it."""
        held = self.replay(self.config, "held", None, "--at-end", "2024-01-01T20:00:00Z")
        self.assertGreater(held["samples"], 100)
        hidden = self.segments[1].rename(self.folder / "hidden")
        self.fails("held", "impressions/1 segment 1", "lost")
        hidden.rename(self.segments[1])
        self.assert_same(self.replay(self.config, "held"), self.expected)

    def test_a_log_that_is_shorter_than_it_was(self):
        self.replay(self.config, "held", None, "--at-end", "2024-01-01T20:00:00Z")
        text = self.segments[1].read_bytes()
        self.segments[1].write_bytes(text[:10])
        self.fails("held", "impressions/00001", "shorter")
        self.segments[1].write_bytes(text)
        self.assert_same(self.replay(self.config, "held"), self.expected)
