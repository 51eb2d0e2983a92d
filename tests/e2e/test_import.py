"""Tables become logs whose replay gives back each row's labels: row by row, by an oracle that reads
the tables with Python's own readers."""

import csv
import gzip
import io
import json
import random
import subprocess
import unittest
import zlib

import sluice

SEED = 41
ROWS = 400
TABLES = sluice.SHARED / "data" / "tables"
STREAMS = ("impressions", "clicks", "purchases")
needs_tables = unittest.skipUnless(TABLES.exists(), f"{TABLES} is not here")


def draw_labels(random_, without_click=0.0):
    """(click, conversion), now and then a conversion alone."""
    click = random_.random() < 0.3
    conversion = click and random_.random() < 0.4
    if not click and random_.random() < without_click:
        return 0, 1
    return int(click), int(conversion)


def skeleton_table(random_, rows, users=20):
    """Ali-CCP's two tables as texts, and (click, conversion, sample's and user's fields) a row."""
    common = {}
    lines = []
    for user in range(users):
        fields = {"101": {str(user): 1.0}, "121": {str(100 + user % 3): 1.0}}
        if user % 3:
            fields["109_14"] = {str(1000 + n): round(random_.uniform(0.1, 4), 4)
                                for n in range(user % 5 + 1)}
        common[f"{user:016x}"] = fields
        lines.append(f"{user:016x},{pack(fields)}\n")
    skeletons = []
    expected = []
    for sample in range(1, rows + 1):
        click, buy = draw_labels(random_, 0.02)
        fields = {"205": {str(random_.randrange(500)): 1.0}, "301": {"7": 1.0}}
        if random_.random() < 0.5:
            fields["508"] = {str(random_.randrange(9)): round(random_.uniform(-1, 3), 5)}
        index = random_.choice(sorted(common))
        skeletons.append(f"{sample},{click},{buy},{index},{pack(fields)}\n")
        expected.append((max(click, buy), buy, fields, common[index]))
    return "".join(skeletons), "".join(lines), expected


def pack(fields):
    entries = [f"{field}\x02{key}\x03{value}" for field, ids in fields.items()
               for key, value in ids.items()]
    return f"{len(entries)},{chr(1).join(entries)}"


def aliexpress_table(random_, rows):
    names = ["search_id", *(f"categorical_{n}" for n in range(1, 17)),
             *(f"numerical_{n}" for n in range(1, 64)), "click", "conversion"]
    table = [names]
    for _ in range(rows):
        click, conversion = draw_labels(random_, 0.02)
        table.append([random_.randrange(90), *(random_.randrange(30) for _ in range(16)),
                      *(round(random_.random(), 6) for _ in range(63)), click, conversion])
    return table


def attribution_table(random_, rows):
    names = ("timestamp uid campaign conversion conversion_timestamp conversion_id attribution "
             "click click_pos click_nb cost cpo time_since_last_click").split()
    names += [f"cat{n}" for n in range(1, 10)]
    table = [names]
    time = 0
    for _ in range(rows):
        time += random_.choice((0, 1, 40))
        click, conversion = draw_labels(random_, 0.05)
        # Some convert in the very second of the impression, some after 30 days.
        delay = random_.choice((0, 1, 3600, random_.randrange(2_592_000), 2_592_000))
        table.append([time, random_.randrange(60), random_.randrange(9), conversion,
                      time + delay if conversion else -1, 7 if conversion else -1, 0, click, -1, -1,
                      round(random_.uniform(1e-5, 0.06), 7), 0.2, random_.choice((-1, 250)),
                      *(random_.randrange(99) for _ in range(9))])
    return table


def search_table(random_, rows):
    table = []
    time = 1_600_000_000
    for _ in range(rows):
        time += random_.choice((0, 0, 2, 500))
        sale = int(random_.random() < 0.2)
        delay = random_.choice((0, 5, 90_000, 2_591_999)) if sale else -1
        if sale and random_.random() < 0.1:
            delay = -1  # a sale whose delay is not known
        title = " ".join(f"{random_.randrange(99):08X}" for _ in range(random_.randrange(4)))
        table.append([sale, 12.5 if sale else -1.0, delay, time, random_.randrange(-1, 90),
                      random_.choice((-1, 0.0, 24.99)), "AGE", "mobile", -1, "female", "BRAND",
                      *("CAT" for _ in range(7)), "COUNTRY", f"P{random_.randrange(40):X}",
                      title or -1, "PARTNER", f"U{random_.randrange(50):X}"])
    return table


def separated(table, delimiter):
    return "".join(delimiter.join(map(str, row)) + "\n" for row in table)


def labels_of(table, click, conversion, implied=False):
    """By row number: a conversion alone is none, or a click too."""
    found = {}
    for number, row in enumerate(table, 1):
        y = 1 if click is None else int(row[click])
        z = 0 if conversion is None else int(row[conversion])
        found[number] = (max(y, z), z) if implied else (y, z and y)
    return found


class ImportCase(sluice.Case):
    def write(self, name, text):
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def run_import(self, *words, out="out", expect=0, **options):
        done = sluice.call([sluice.BINARY, "import", *words, "--out", self.folder / out], **options)
        self.assertEqual(done.returncode, expect, done.stderr[-2000:])
        return done

    def records(self, stream, out="out"):
        """impression id -> record, of all partitions."""
        found = {}
        for path in sorted((self.folder / out / stream).iterdir()):
            text = path.read_bytes()
            if path.suffix == ".zst":
                text = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
            for line in text.splitlines():
                record = json.loads(line)
                self.assertNotIn(record["impression_id"], found)
                found[record["impression_id"]] = record
                if "user_id" in record:
                    key = str(record["user_id"]).encode()
                    files = len(list((self.folder / out / stream).iterdir()))
                    self.assertEqual(int(path.name[:5]), zlib.crc32(key) % files)
        return found

    def check(self, labels, out="out"):
        """Replays it: every row is labelled as the table says, and nothing is refused."""
        predictions = self.folder / f"{out}.csv"
        report = self.replay(self.folder / out / "sluice.toml", f"{out}-data", None,
                             "--predictions", predictions)
        counts = {"impressions": len(labels), "clicked": sum(y for y, _ in labels.values()),
                  "converted": sum(z for _, z in labels.values())}
        self.assertEqual(report["labels"], counts)
        self.assertEqual(sum(report["refused"].values()), 0, report["refused"])
        self.assertEqual(json.loads((self.folder / out / "expected.json").read_text())["labels"],
                         counts)
        found = {}
        with predictions.open() as file:
            for line in csv.DictReader(file):
                label = found.setdefault(int(line["impression_id"]), [None, None])
                for place, name in enumerate("yz"):
                    if line[f"{name}_final"] == "1":
                        self.assertIsNone(label[place])
                        label[place] = int(line[name])
        self.assertEqual({number: tuple(label) for number, label in found.items()}, labels)
        for stream in STREAMS:
            self.assertEqual(report["events"][stream], len(self.records(stream, out)))
        return report


class Formats(ImportCase):
    def setUp(self):
        super().setUp()
        self.random = random.Random(SEED)

    def test_aliccp(self):
        skeletons, common, rows = skeleton_table(self.random, ROWS)
        table = self.write("skeleton.csv", skeletons)
        shared = self.write("common.csv.gz", gzip.compress(common.encode()))
        self.run_import("--format", "aliccp", table, "--common", shared, "--compress", "zstd")
        labels = {number: row[:2] for number, row in enumerate(rows, 1)}
        self.check(labels)
        records = self.records("impressions")
        for number, (_, _, fields, user) in enumerate(rows, 1):
            features = dict(records[number]["features"])
            self.assertEqual(features.pop("common"), user)
            self.assertEqual(features, fields)
            self.assertEqual(str(records[number]["user_id"]), next(iter(user["101"])))
            self.assertEqual(str(records[number]["item_id"]), next(iter(fields["205"])))
        text = (self.folder / "out" / "sluice.toml").read_text()
        self.assertIn('path = "features.common.109_14", type = "weighted_ids", group = "common"',
                      text)
        expected = json.loads((self.folder / "out" / "expected.json").read_text())["table"]
        alone = sum(1 for line in skeletons.splitlines() if line.split(",")[1:3] == ["0", "1"])
        self.assertGreater(alone, 0)
        self.assertEqual(expected["implied_clicks"], alone)
        # The same, but a conversion alone is none; and of the fields only some.
        self.run_import("--format", "aliccp", table, "--common", shared, "--features", "101,205",
                        "--conversion-without-click", "skip", out="skipped")
        clicks = [line.split(",")[1] for line in skeletons.splitlines()]
        self.check({n: (y and int(clicks[n - 1]), z and int(clicks[n - 1]))
                    for n, (y, z) in labels.items()}, out="skipped")
        record = self.records("impressions", "skipped")[1]["features"]
        self.assertEqual((set(record), set(record["common"])), ({"205", "common"}, {"101"}))

    def test_aliexpress(self):
        table = aliexpress_table(self.random, ROWS)
        first = self.write("train.csv", separated(table[:200], ","))
        second = self.write("test.csv", separated([table[0], *table[200:]], ",").replace("\n", "\r\n"))
        self.run_import("--format", "aliexpress", first, second, "--partitions", 3)
        labels = labels_of(table[1:], -2, -1)
        self.check(labels)
        expected = json.loads((self.folder / "out" / "expected.json").read_text())["table"]
        alone = sum(1 for row in table[1:] if row[-2:] == [0, 1])
        self.assertGreater(alone, 0)
        self.assertEqual(expected["skipped_conversions"], alone)
        # Rows without times: evenly spread in the table's order.
        times = [record["ts"] for _, record in sorted(self.records("impressions").items())]
        self.assertEqual(times, [1_704_067_200_000 + 10 * n for n in range(ROWS)])

    def test_criteo_attribution(self):
        table = attribution_table(self.random, ROWS)
        path = self.write("table.tsv.gz", gzip.compress(separated(table, "\t").encode()))
        self.run_import("--format", "criteo_attribution", path, "--start", "2017-01-01")
        self.check(labels_of(table[1:], 7, 3))
        impressions, clicks, purchases = map(self.records, STREAMS)
        base = 1_483_228_800_000
        for number, row in enumerate(table[1:], 1):
            self.assertEqual(impressions[number]["ts"], base + 1000 * row[0])
            if number in purchases:
                self.assertEqual(purchases[number]["ts"], base + 1000 * row[4])
            if number in clicks:
                self.assertGreaterEqual(clicks[number]["ts"], impressions[number]["ts"])
                self.assertLess(clicks[number]["ts"], impressions[number]["ts"] + 120_000)
            features = impressions[number]["features"]
            self.assertEqual(features.get("time_since_last_click", -1), row[12])
            self.assertFalse({"attribution", "click_pos", "conversion_id"} & set(features))

    def test_criteo_search(self):
        table = search_table(self.random, ROWS)
        path = self.write("CriteoSearchData", separated(table, "\t"))
        self.run_import("--format", "criteo_search", path)
        self.check(labels_of(table, None, 0))
        impressions, clicks, purchases = map(self.records, STREAMS)
        for number, row in enumerate(table, 1):
            self.assertEqual(impressions[number]["ts"], 1000 * row[3])
            self.assertEqual(clicks[number]["ts"], 1000 * row[3])
            if row[2] >= 0:
                self.assertEqual(purchases[number]["ts"], 1000 * (row[3] + row[2]))
            title = impressions[number]["features"].get("product_title", [])
            self.assertEqual([str(word) for word in title],
                             [] if row[20] == -1 else row[20].split(" "))

    def test_csv_of_any_shape(self):
        """Quotes, line ends in fields, columns of every role; read from standard input."""
        texts = ["plain", "with, comma", 'a "quoted" word', "two\nlines", "", "ümläut", " 12 ", "007",
                 "tab\there"]
        header = ["who", "bought", "text (1)", "seen", "price", "tags", "clicked", "thing"]
        table = []
        time = 1_700_000_000
        for _ in range(ROWS):
            # The table is out of order by up to a minute.
            time += self.random.choice((0, 1, 5))
            click, conversion = draw_labels(self.random, 0.02)
            table.append([self.random.randrange(30), conversion, self.random.choice(texts),
                          time - self.random.randrange(60) + 0.25,
                          self.random.choice(("", "-1.5", "+20", "1e3", ".5")),
                          self.random.choice(("", "a", "a|b", "|3|3|")), click,
                          f"t{self.random.randrange(9)}"])
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows([header, *table])
        words = ["-", "--click", "clicked", "--conversion", "bought", "--time", "seen",
                 "--time-unit", "seconds", "--user", "who", "--item", "thing", "--numbers", "pri*",
                 "--lists", "tags", "--partitions", 2]
        done = subprocess.run([str(word) for word in (sluice.BINARY, "import", *words, "--out",
                                                      self.folder / "out")],
                              input=text.getvalue().encode(), capture_output=True,
                              timeout=sluice.TIMEOUT_S, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check(labels_of(table, 6, 1))
        for number, record in self.records("impressions").items():
            row = table[number - 1]
            self.assertEqual(record["ts"], 1000 * row[3])
            wanted = {"who": row[0], "thing": row[7]}
            if row[2]:
                wanted["text__1_"] = row[2]
            if row[4]:
                wanted["price"] = float(row[4])
            if row[5]:
                wanted["tags"] = [int(tag) if tag == "3" else tag for tag in row[5].split("|") if tag]
            self.assertEqual(record["features"], wanted)

    def test_delays_without_bounds(self):
        """Clicks and conversions far later than the usual windows, and at once."""
        day = 86_400
        table = [["c", "z", "t", "tc", "tz", "f"]]
        for n in range(60):
            delays = [(0, 0), (7_200, 40 * day), (3 * day, 1), (1, 365 * day)][n % 4]
            time = 1_500_000_000 + 1000 * n
            table.append([1, 1, time, time + delays[0], time + sum(delays), n % 5])
        path = self.write("table.csv", separated(table, ","))
        self.run_import(path, "--click", "c", "--conversion", "z", "--time", "t", "--click-time",
                        "tc", "--conversion-time", "tz", "--time-unit", "seconds")
        self.check(labels_of(table[1:], 0, 1))

    def test_iso_times_and_no_header(self):
        times = ["2024-03-01 10:00:00", "2024-03-01T10:00:05Z", "2024-03-02", "2024-03-02 00:00:00.250"]
        path = self.write("table.txt", "".join(f"{n % 2};{time};{n}\n"
                                               for n, time in enumerate(times)))
        self.run_import(path, "--no-header", "--click", "c1", "--time", "c2", "--delimiter", ";")
        self.check({1: (0, 0), 2: (1, 0), 3: (0, 0), 4: (1, 0)})
        found = [record["ts"] for _, record in sorted(self.records("impressions").items())]
        self.assertEqual(found, [1_709_287_200_000, 1_709_287_205_000, 1_709_337_600_000,
                                 1_709_337_600_250])


@needs_tables
class SharedTables(ImportCase):
    """The first rows of public sets."""

    def test_aliexpress(self):
        path = TABLES / "aliexpress_train_sample.csv"
        with path.open() as file:
            rows = list(csv.reader(file))[1:]
        self.run_import("--format", "aliexpress", path)
        self.check(labels_of(rows, -2, -1))

    def test_ali_ccp_in_columns(self):
        rows = []
        paths = [TABLES / f"ali_ccp_{part}_sample.csv" for part in ("train", "val", "test")]
        for path in paths:
            with path.open() as file:
                rows += list(csv.reader(file))[1:]
        self.run_import(*paths, "--click", "click", "--conversion", "purchase", "--user", "101",
                        "--item", "205", "--numbers", "D*")
        self.check(labels_of(rows, 0, 1))


class Behaviour(ImportCase):
    WORDS = ("--click", "y", "--conversion", "z", "--user", "u")

    def setUp(self):
        super().setUp()
        draw = random.Random(SEED)
        self.table = [["u", "f", "y", "z"]]
        for _ in range(ROWS):
            self.table.append([draw.randrange(40), draw.randrange(7), *draw_labels(draw)])
        self.path = self.write("table.csv", separated(self.table, ","))

    def files(self, out):
        root = self.folder / out
        return {str(path.relative_to(root)): path.read_bytes()
                for path in sorted(root.rglob("*")) if path.is_file()}

    def test_same_bytes(self):
        self.run_import(self.path, *self.WORDS)
        self.run_import(self.path, *self.WORDS, out="again")
        self.assertEqual(self.files("out"), self.files("again"))
        self.run_import(self.path, *self.WORDS, "--seed", 2, out="seed")
        for name, text in self.files("seed").items():
            changes = name.startswith(("clicks/", "purchases/"))
            self.assertEqual(text != self.files("out")[name], changes, name)
        self.assertEqual(set(self.files("seed")), set(self.files("out")))

    def test_limit(self):
        self.run_import(self.path, *self.WORDS, "--limit", 50, "--impressions-per-second", 0.1)
        self.check(labels_of(self.table[1:51], 2, 3))

    def test_bad_rows(self):
        rows = separated(self.table[1:101], ",").splitlines(keepends=True)
        bad = {10: "1,2,0\n", 20: "1,2,yes,0\n", 30: "1,2,1,2\n", 40: '"1"x,2,0,0\n',
               50: "1,\udcff,0,0\n", 60: "a\udcc3,\udcbcb,0,0\n", 99: '"1,2,0,0\n'}
        for number, line in bad.items():
            rows[number - 1] = line
        text = ("u,f,y,z\n" + "".join(rows)).encode("utf-8", "surrogateescape")
        path = self.write("bad.csv", text)
        done = self.run_import(path, *self.WORDS, expect=1)
        # The last one has no end: it takes the last row with it.
        for place in ("bad.csv:11: columns:", "bad.csv:21: column 3: label: 'yes'",
                      "bad.csv:31: column 4: label: '2'", "bad.csv:41: quotes:",
                      "bad.csv:51: column 2: not_utf8:", "bad.csv:61: column 1: not_utf8:",
                      "bad.csv:100: quotes:", "bad rows, label: 2"):
            self.assertIn(place, done.stderr)
        self.assertIn("7 bad rows", done.stderr)
        self.assertFalse((self.folder / "out").exists())
        (self.folder / "out").mkdir()  # one that was there before stays
        self.run_import(path, *self.WORDS, "--max-bad-rows", 6, expect=1)
        self.assertEqual(self.files("out"), {})
        self.run_import(path, *self.WORDS, "--max-bad-rows", 7)
        expected = json.loads((self.folder / "out" / "expected.json").read_text())["table"]
        self.assertEqual(expected["rows"], 99)
        self.assertEqual(expected["bad_rows"], {"columns": 1, "label": 2, "not_utf8": 2, "quotes": 2})
        self.check({number: label for number, label in labels_of(self.table[1:100], 2, 3).items()
                    if number not in bad})

    def test_ten_bad_rows_are_told(self):
        for bad, more in ((10, ""), (13, "... and 3 more\n")):
            path = self.write("bad.csv", "u,f,y,z\n" + "1,2,maybe,0\n" * bad + "1,2,0,0\n")
            done = self.run_import(path, *self.WORDS, expect=1)
            self.assertEqual(done.stderr.count("bad.csv:"), 10)
            self.assertIn(f"bad.csv:11: column 3: label: 'maybe' is neither 0 nor 1\n{more}"
                          f"bad rows, label: {bad}\n", done.stderr)

    def test_a_damaged_header(self):
        rows = separated(self.table[1:], ",")
        for header, problem in (('u,f,"y"x,z', "quotes"), ("u,f\udcc3,y,z", "column 2: not_utf8"),
                                ('"u,f,y,z', "quotes")):
            text = f"\n{header}\n{rows}".encode("utf-8", "surrogateescape")
            done = self.run_import(self.write("bad.csv", text), *self.WORDS, "--max-bad-rows", 999,
                                   expect=1)
            self.assertRegex(done.stderr, f"bad.csv:2: {problem}: .* header")
            self.assertEqual(self.files("out"), {})

    def test_a_damaged_first_row_of_data(self):
        """Says nothing of the columns, also where another file begins with it."""
        lines = separated(self.table[1:101], ",").splitlines(keepends=True)
        first = self.write("first.csv", '"1"x,2\n' + "".join(lines[1:50]))
        second = self.write("second.csv", "1,2\n" + "".join(lines[51:]))
        words = [first, second, "--no-header", "--click", "c3", "--conversion", "c4"]
        done = self.run_import(*words, expect=1)
        for place in ("first.csv:1: quotes", "second.csv:1: columns", "2 bad rows"):
            self.assertIn(place, done.stderr)
        self.run_import(*words, "--max-bad-rows", 2)
        self.check({number: label for number, label in labels_of(self.table[1:101], 2, 3).items()
                    if number not in (1, 51)})
        # The same where a header may be there, and is not.
        table = separated(attribution_table(random.Random(SEED), 9)[1:], "\t").encode()
        path = self.write("table.tsv", b"\xff\t1\n" + table)
        self.run_import("--format", "criteo_attribution", path, "--max-bad-rows", 1, out="tabs")
        self.assertEqual(set(self.records("impressions", "tabs")), set(range(2, 11)))

    def test_bad_rows_of_aliccp(self):
        skeletons, common, rows = skeleton_table(random.Random(SEED), 60)
        lines = skeletons.splitlines(keepends=True)
        lines[4] = lines[4].replace(lines[4].split(",")[3], "nobody")
        lines[5] = lines[5].replace("\x03", "")
        lines[6] = lines[6].replace(",2,205", ",7,205").replace(",3,205", ",7,205")
        table = self.write("skeleton.csv", "".join(lines))
        shared = self.write("common.csv", common + common.splitlines(keepends=True)[0])
        words = ["--format", "aliccp", table, "--common", shared]
        done = self.run_import(*words, expect=1)
        for place in ("common.csv:21: column 1: repeated_common_features", "skeleton.csv:5: column 4: "
                      "no_common_features: 'nobody'", "skeleton.csv:6: column 6: features",
                      "skeleton.csv:7: column 6: features"):
            self.assertIn(place, done.stderr)
        self.run_import(*words, "--max-bad-rows", 4)
        self.check({number: row[:2] for number, row in enumerate(rows, 1)
                    if number not in (5, 6, 7)})

    def test_features_of_aliccp_that_are_not_there(self):
        skeletons, common, _ = skeleton_table(random.Random(SEED), 60)
        table = self.write("skeleton.csv", skeletons)
        words = ["--format", "aliccp", table, "--common", self.write("common.csv", common)]
        for features, missing in (("999", "'999'"), ("101,20,205", "'20'"), ("9*", "'9*'")):
            done = self.run_import(*words, "--features", features, expect=2)
            self.assertIn(missing, done.stderr)
            self.assertEqual(self.files("out"), {})
        bare = ["--format", "aliccp", self.write("bare.csv", "1,0,0,u,0,\n"), "--common",
                self.write("bare_common.csv", "u,0,\n")]
        self.assertIn("no row has a feature", self.run_import(*bare, expect=2).stderr)
        self.run_import(*words, "--features", "10*,508")  # of the common table, and of a few rows

    def test_times_that_cannot_be(self):
        path = self.write("times.csv", "y,z,t,tz,f\n1,1,1600000000,1600000100,3\n"
                          "1,1,1600000000,1599999999,3\n0,0,16,,3\n0,0,,,3\n0,0,soon,,3\n"
                          "1,1,1600000000,1700000000,3\n")
        words = [path, "--click", "y", "--conversion", "z", "--time", "t", "--conversion-time", "tz",
                 "--time-unit", "seconds"]
        done = self.run_import(*words, expect=1)
        for line, why in ((3, "before its"), (4, "2001"), (5, "none"), (6, "'soon'"), (7, "366 days")):
            self.assertRegex(done.stderr, f"times.csv:{line}: .*time: .*{why}")
        self.run_import(*words, "--max-bad-rows", 5)
        self.check({1: (1, 1)})

    def test_a_time_of_what_did_not_happen(self):
        """Some tables have a 0 where others have nothing."""
        path = self.write("zeros.csv", "y,z,t,ty,tz,f\n1,0,1600000000,1600000050,0,3\n"
                          "0,0,1600000000,0,0,3\n1,1,1600000000,1600000050,1600000100,3\n")
        words = [path, "--click", "y", "--conversion", "z", "--time", "t", "--conversion-time", "tz",
                 "--time-unit", "seconds"]
        for more in ([], ["--click-time", "ty"]):
            out = f"out{len(more)}"
            self.run_import(*words, *more, out=out)
            self.check({1: (1, 0), 2: (0, 0), 3: (1, 1)}, out=out)
            self.assertGreater(self.records("clicks", out)[1]["ts"], 1_600_000_000_000)

    def test_wrong_words(self):
        for words, needle in (
                ([self.path], "--click"),
                ([self.path, "--click", "yy"], "no column 'yy'"),
                ([self.path, *self.WORDS, "--numbers", "g*"], "'g*'"),
                ([self.path, "--format", "aliexpress"], "no column 'click'"),
                ([self.path, "--format", "aliccp"], "--common"),
                ([self.path, *self.WORDS, "--partitions", 0], "--partitions"),
                ([self.path, *self.WORDS, "--start", "1970-01-01"], "--start"),
                ([self.path, *self.WORDS, "--list-separator", "\udcc3"], "--list-separator"),
                ([self.path, *self.WORDS, "--features", "y"], "no column is left"),
                ([self.path, "--format", "criteo_attribution", "--time-unit", "iso"],
                 "--time-unit: is for --format csv only"),
                ([self.path, "--format", "aliexpress", "--no-header"], "--no-header: is for"),
                ([self.path, "--format", "aliccp", "--common", self.path, "--numbers", "f"],
                 "--numbers: is for")):
            done = self.run_import(*words, expect=2)
            self.assertIn(needle, done.stderr)
            self.assertEqual(self.files("out"), {})
        done = self.run_import(self.folder / "nowhere.csv", *self.WORDS, expect=1)
        self.assertIn("nowhere.csv", done.stderr)
        done = self.run_import(self.write("empty.csv", "u,f,y,z\n"), *self.WORDS, expect=1)
        self.assertIn("no row", done.stderr)

    def test_a_folder_that_is_not_empty(self):
        (self.folder / "out").mkdir()
        kept = self.write("out/kept", "as it was")
        done = self.run_import(self.path, *self.WORDS, expect=2)
        self.assertIn("not empty", done.stderr)
        self.assertEqual(self.files("out"), {"kept": b"as it was"})
        kept.unlink()
        (self.folder / "out" / "importing").mkdir()
        done = self.run_import(self.path, *self.WORDS, expect=2)
        self.assertIn("killed", done.stderr)
        (self.folder / "out" / "importing").rmdir()
        self.run_import(self.path, *self.WORDS)
        self.assertEqual({name.split("/")[0] for name in self.files("out")},
                         {*STREAMS, "sluice.toml", "expected.json"})
