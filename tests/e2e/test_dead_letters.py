"""Refused records: looked at, repaired, replayed, and sent to a topic."""

import json
import random
import re
import shlex
import shutil
import signal
import subprocess

import sluice

SEED = 31
READER = sluice.BUILD / "topic_reader"
TOOL = sluice.BUILD / "topic_tool"
TIME = re.compile(rb'"ts":(\d{10})(\d{3})[,}]')
# Small commits, so that a kill meets many of them.
RESTLESS = {"store.commit_interval": '"5 ms"', "store.commit_records": 200,
            "store.max_learner_lag": 400, "source.read_records": 50, "checkpoints.every": 300}


def verb(action, data, *arguments, **options):
    return sluice.call([sluice.BINARY, "dead-letters", action, "--data-dir", data, *arguments],
                       **options)


class DeadLetters(sluice.Case):
    def setUp(self):
        super().setUp()
        self.shop = self.folder / "shop"
        self.config = sluice.generate(
            self.shop, "--impressions", 4000, "--seed", 5, "--malformed", 0.003,
            "--orphans", 0.005, "--repeats", 0.05)

    def json_of(self, action, data, *arguments):
        done = verb(action, data, "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def letters(self, data, *arguments):
        return self.json_of("list", data, "--limit", 0, *arguments)["dead_letters"]

    @staticmethod
    def lines_of(path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    def with_times_in_seconds(self):
        """A copy of the logs in which some records have "time" in seconds for "ts"."""
        bad = self.folder / "bad"
        shutil.copytree(self.shop, bad)
        draw = random.Random(SEED)
        broken = 0
        for path in sorted(bad.glob("*/*.jsonl")):
            lines = path.read_bytes().splitlines(keepends=True)
            for number, line in enumerate(lines):
                found = TIME.search(line)
                if found is None or draw.random() > 0.02:
                    continue
                try:
                    json.loads(line)
                except ValueError:
                    continue
                seconds = b'"time":' + found[1] + b"." + found[2] + line[found.end() - 1:found.end()]
                lines[number] = line[:found.start()] + seconds + line[found.end():]
                broken += 1
            path.write_bytes(b"".join(lines))
        self.assertGreater(broken, 50)
        return bad, broken

    def test_repaired_in_their_places_they_give_the_model_of_the_good_logs(self):
        good = self.replay(self.config, "good")
        bad, broken = self.with_times_in_seconds()
        root = {"source.root": f'"{bad}"'}
        report = self.replay(self.config, "with-bad", root)
        self.assertEqual(report["refused"]["malformed"], good["refused"]["malformed"] + broken)
        self.assertNotEqual(report["samples_digest"], good["samples_digest"])
        kept = self.letters(self.folder / "with-bad", "--reason", "malformed")
        self.assertEqual(len(kept), report["refused"]["malformed"])

        merged = self.folder / "merged"
        summary = self.json_of(
            "export", self.folder / "with-bad", self.config, "--set", f'source.root="{bad}"',
            "--out", merged, "--merge", "--reason", "malformed", "--rename-field", "time=ts",
            "--scale-time", 1000)
        self.assertEqual((summary["written"], summary["repaired"], summary["unrepairable"]),
                         (broken, broken, good["refused"]["malformed"]))
        origins = self.lines_of(merged / "origins.jsonl")
        self.assertEqual(len(origins), broken)
        for origin in origins:
            path = merged / origin["stream"] / f"{origin['partition']:05}.jsonl"
            line = path.read_bytes().splitlines()[origin["line"] - 1]
            self.assertIn(b'"ts":', line)
        problems = self.lines_of(merged / "unrepairable.jsonl")
        self.assertEqual(len(problems), good["refused"]["malformed"])
        for problem in problems:
            self.assertTrue(problem["problem"] and ("text" in problem or "hex" in problem))
        again = self.replay(self.config, "again", {"source.root": f'"{merged}"'})
        self.assert_same(again, good)

    def test_late_ones_move_to_where_they_are_not_late(self):
        shop = self.folder / "late"
        config = sluice.generate(shop, "--impressions", 4000, "--seed", 6, "--late", 0.02,
                                 "--span", "2 h", "--page", 2)
        report = self.replay(config, "data")
        late = report["refused"]["late"]
        self.assertGreater(late, 20)
        merged = self.folder / "merged"
        summary = self.json_of("export", self.folder / "data", config, "--out", merged, "--merge",
                               "--reason", "late")
        self.assertEqual((summary["written"], summary["moved"]), (late, late))
        again = self.replay(config, "again", {"source.root": f'"{merged}"'})
        self.assertEqual(again["refused"]["late"], 0)
        # The samples are those of a lineage that never found them late.
        patient = self.replay(config, "patient", {"streams.max_out_of_orderness": '"2 d"'})
        self.assertEqual(patient["refused"]["late"], 0)
        for key in ("samples", "samples_digest", "model_digest", "labels"):
            self.assertEqual(again[key], patient[key], key)

    def test_late_ones_at_one_place_stand_in_the_order_of_their_times(self):
        """One record from far ahead comes first, and all others after it, the newest first."""
        shop = self.folder / "backwards"
        config = sluice.generate(shop, "--impressions", 2000, "--seed", 9, "--span", "2 h")
        path = shop / "impressions" / "00000.jsonl"
        path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
        bound = {"streams.max_out_of_orderness": '"1 min"'}
        late = self.replay(config, "data", bound)["refused"]["late"]
        self.assertGreater(late, 100)
        merged = self.folder / "merged"
        summary = self.json_of(
            "export", self.folder / "data", config, "--set",
            'streams.max_out_of_orderness="1 min"', "--out", merged, "--merge", "--reason", "late")
        self.assertEqual((summary["written"], summary["moved"]), (late, late))
        again = self.replay(config, "again", {**bound, "source.root": f'"{merged}"'})
        self.assertEqual(again["refused"]["late"], 0)

    def test_alone_they_are_logs(self):
        self.replay(self.config, "data")
        out = self.folder / "alone"
        done = verb("export", self.folder / "data", "--out", out, "--reason", "no_open_impression")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("would be late", done.stdout)
        count = len(self.letters(self.folder / "data", "--reason", "no_open_impression"))
        self.assertGreater(count, 5)
        report = self.replay(self.config, "again", {"source.root": f'"{out}"'})
        self.assertEqual(report["refused"]["no_open_impression"], count)
        # What is there is not written over.
        self.assertEqual(verb("export", self.folder / "data", "--out", out).returncode, 2)

    def test_the_command_that_an_export_names_works_as_it_stands(self):
        self.replay(self.config, "data")
        out = self.folder / "it's \"alone\""
        done = verb("export", self.folder / "data", self.config, "--set", "model.name='its'",
                    "--set", "model.hidden=[4]", "--out", out, "--reason", "no_open_impression")
        self.assertEqual(done.returncode, 0, done.stderr)
        line = next(line for line in done.stdout.splitlines() if line.startswith("  sluice "))
        words = shlex.split(line)
        self.assertIn("model.name='its'", words)
        words[0] = str(sluice.BINARY)
        words[words.index("NEW")] = str(self.folder / "new")
        done = sluice.call(words)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.folder / "new" / "models" / "its").is_dir())

    def test_list_and_show(self):
        report = self.replay(self.config, "data")
        data = self.folder / "data"
        letters = self.letters(data)
        self.assertEqual(len(letters), report["dead_letters"]["kept"])
        self.assertEqual([letter["number"] for letter in letters],
                         sorted((letter["number"] for letter in letters), reverse=True))
        for reason in ("malformed", "no_open_impression"):
            self.assertEqual(len(self.letters(data, "--reason", reason)),
                             report["refused"][reason])
        clicks = self.letters(data, "--stream", "clicks")
        self.assertEqual(len(clicks), sum(letter["stream"] == "clicks" for letter in letters))
        self.assertEqual(self.letters(data, "--since", "2099-01-01T00:00:00Z"), [])
        self.assertEqual(len(self.letters(data, "--since", "1 h")), len(letters))
        table = verb("list", data, "--limit", 3).stdout.splitlines()
        self.assertEqual(len([line for line in table if "event time" in line or "JSON" in line
                              or "ts:" in line or "impression_id:" in line]), 3, table)
        self.assertIn(f"3 of {len(letters)} shown, newest first", table[-1])
        for letter in random.Random(SEED).sample(letters, 10):
            path = self.shop / letter["stream"] / f"{letter['partition']:05}.jsonl"
            line = path.read_bytes()[letter["position"]:].split(b"\n", 1)[0]
            raw = subprocess.run([sluice.BINARY, "dead-letters", "show", "--data-dir", data, "--raw",
                                  str(letter["number"])], capture_output=True, check=True).stdout
            self.assertEqual(raw, line)
            shown = verb("show", data, letter["number"])
            self.assertEqual(shown.returncode, 0, shown.stderr)
            self.assertIn(letter["reason"], shown.stdout)
        for arguments, code in ((["list", self.folder], 2), (["show", data, 10**6], 1),
                                (["list", data, "--reason", "late-after"], 2),
                                (["list", data, "--since", "soon"], 2),
                                (["export", data, "--out", self.folder / "x", "--merge"], 2),
                                (["export", data, "--out", self.folder / "x", "--scale-time", "0"],
                                 2)):
            done = verb(arguments[0], *arguments[1:])
            self.assertEqual(done.returncode, code, (arguments, done.stderr))
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_while_a_service_runs(self):
        data = self.folder / "live"
        process = subprocess.Popen(
            sluice.command("run", self.config, data, {**RESTLESS, "source.idle_after": '"1 s"'}),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            seen = lambda: verb("list", data, "--json").returncode == 0 and \
                len(self.letters(data)) > 10
            sluice.wait_until(seen, 60, "dead letters")
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)
        finally:
            process.kill()
            process.wait()


@sluice.needs_kafka
class DeadLetterTopic(sluice.Case):
    """Every refused record arrives at dead_letters.topic, with what a reader needs to know."""

    def setUp(self):
        super().setUp()
        self.shop = self.folder / "shop"
        self.config = sluice.generate(
            self.shop, "--impressions", 6000, "--seed", 7, "--malformed", 0.02, "--orphans", 0.02)
        self.prefix = self.folder.name + "-"
        topics = sluice.load_topics(self.shop, self.prefix)
        self.topic = self.prefix + "dead"
        made = sluice.call([TOOL, "--brokers", sluice.KAFKA, "create", self.topic, 2])
        self.assertEqual(made.returncode, 0, made.stderr)
        self.settings = {"source.type": '"kafka"', "source.brokers": f'"{sluice.KAFKA}"', **topics,
                         "dead_letters.topic": f'"{self.topic}"'}

    def messages(self):
        done = sluice.call([READER, "--brokers", sluice.KAFKA, "--topic", self.topic])
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def check_messages(self, data):
        """Each letter of the store is there, as the store has it; returns how many are repeats."""
        letters = json.loads(verb("list", data, "--limit", 0, "--json").stdout)
        stored = {letter["number"]: letter for letter in letters["dead_letters"]}
        self.assertGreater(len(stored), 150)
        messages = self.messages()
        self.assertEqual(len({message["headers"]["sluice.error.folder"] for message in messages}), 1)
        found = {}
        for message in messages:
            headers = {name.removeprefix("sluice.error."): value
                       for name, value in message["headers"].items()}
            letter = stored[int(headers["number"])]
            self.assertEqual(headers["reason"], letter["reason"])
            self.assertEqual(headers["detail"], letter["detail"])
            self.assertEqual(headers["stream"], letter["stream"])
            self.assertEqual(headers["topic"], self.prefix + letter["stream"])
            self.assertEqual(int(headers["partition"]), letter["partition"])
            self.assertEqual(int(headers["offset"]), letter["position"])
            self.assertEqual(headers["wall_time"], letter["wall_time"])
            self.assertEqual(message["key"], f"{letter['stream']}/{letter['partition']}")
            found.setdefault(letter["number"], set()).add(message["value"])
        self.assertEqual(set(found), set(stored), "missing or unknown letters")
        for number in random.Random(SEED).sample(sorted(found), 5):
            value = json.loads(verb("show", data, number, "--json").stdout)
            self.assertEqual(len(found[number]), 1)
            if "text" in value:
                self.assertEqual(found[number], {value["text"]})
        return len(messages) - len(found)

    def test_all_arrive_once(self):
        report = self.replay(self.config, "data", self.settings)
        self.assertEqual(report["dead_letters"]["unsent"], 0)
        self.assertEqual(self.check_messages(self.folder / "data"), 0)
        # A replay that was finished before sends nothing again.
        self.replay(self.config, "data", self.settings)
        self.assertEqual(self.check_messages(self.folder / "data"), 0)

    @sluice.slow
    def test_none_is_missing_after_kills(self):
        settings = {**self.settings, **RESTLESS}
        data = self.folder / "killed"
        sluice.kill_many_times(sluice.command("replay", self.config, data, settings), data, 5, SEED)
        report = self.replay(self.config, "killed", settings)
        self.assertEqual(report["dead_letters"]["unsent"], 0)
        self.assertEqual(report["dead_letters"]["trimmed_unsent"], 0)
        self.check_messages(data)
        plain = self.replay(self.config, "plain", {**self.settings, "dead_letters.topic": '""'})
        self.assert_same(report, plain)

    @sluice.slow
    def test_a_topic_that_goes_away_holds_nothing_up(self):
        """It is deleted while a service runs: the join goes on, and the letters wait."""
        shop = self.folder / "halves"
        config = sluice.generate(shop, "--impressions", 6000, "--seed", 8, "--malformed", 0.02,
                                 "--segments", 2)
        prefix = self.prefix + "halves-"
        load = [sluice.LOADER, "--brokers", sluice.KAFKA, "--root", shop, "--prefix", prefix]
        self.assertEqual(sluice.call([*load, "--segments", "0..0"]).returncode, 0)
        # Long enough that what the loader adds, one topic after another, is not too late.
        settings = {**self.settings, **RESTLESS, "source.idle_after": '"5 s"'}
        for stream in ("impressions", "clicks", "purchases"):
            settings[f"streams.{stream}.topic"] = f'"{prefix}{stream}"'
        data = self.folder / "data"
        lines = lambda: (data / "digests.jsonl").read_bytes().count(b"\n") \
            if (data / "digests.jsonl").exists() else 0
        count = lambda: len(json.loads(
            verb("list", data, "--limit", 0, "--json").stdout or '{"dead_letters": []}')
            ["dead_letters"])
        process = subprocess.Popen(sluice.command("run", config, data, settings),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            sluice.wait_until(lambda: lines() > 2 and count() > 20, 60, "the first half")
            deleted = sluice.call([TOOL, "--brokers", sluice.KAFKA, "delete", self.topic])
            self.assertEqual(deleted.returncode, 0, deleted.stderr)
            before = lines()
            known = count()
            self.assertEqual(sluice.call([*load, "--segments", "1..1", "--append"]).returncode, 0)
            # Whatever is late on a busy machine: labels go on, and letters are kept.
            sluice.wait_until(lambda: lines() > before and count() > known + 20, 60,
                              "the second half")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        self.assertEqual(process.returncode, 0, errors[-2000:])
        self.assertIn("dead letters are not yet sent", errors)
        made = sluice.call([TOOL, "--brokers", sluice.KAFKA, "create", self.topic, 2])
        self.assertEqual(made.returncode, 0, made.stderr)
        report = self.replay(config, "data", settings)
        self.assertEqual(report["dead_letters"]["unsent"], 0)
        self.assertEqual(report["dead_letters"]["trimmed_unsent"], 0)
        total = count()
        self.assertEqual(total, report["dead_letters"]["kept"])
        numbers = {int(message["headers"]["sluice.error.number"]) for message in self.messages()}
        # What had been acknowledged went with the topic; all that came after is in the new one.
        self.assertLessEqual(min(numbers), known)
        self.assertEqual(numbers, set(range(min(numbers), total)))

    def test_a_topic_given_later_gets_what_is_kept(self):
        without = {**self.settings, "dead_letters.topic": '""'}
        self.replay(self.config, "data", without)
        self.assertEqual(self.messages(), [])
        self.replay(self.config, "data", self.settings)
        self.assertEqual(self.check_messages(self.folder / "data"), 0)

    def test_a_missing_topic_stops_the_start(self):
        settings = {**self.settings, "dead_letters.topic": f'"{self.prefix}nowhere"'}
        done = self.replay(self.config, "data", settings, expect=1)
        self.assertIn(f"{self.prefix}nowhere", done.stderr)
        self.assertIn("dead_letters.topic", done.stderr)
        # Nothing was begun: the same folder goes on with a right one.
        self.replay(self.config, "data", self.settings)
        self.assertEqual(self.check_messages(self.folder / "data"), 0)
