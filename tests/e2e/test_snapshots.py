"""What an operator does with snapshots: hold back, roll back, learn again without what spoilt them."""

import json
import unittest

import sluice

SHOP = ["--impressions", 12000, "--users", 500, "--items", 100, "--partitions", 2, "--span", "6h",
        "--click-window", "5 min", "--conversion-window", "1 h", "--seed", 11]
SETTINGS = {"snapshots.every": '"30 min"', "snapshots.keep": 100, "checkpoints.every": 2000,
            "training.batch_size": 128, "model.hidden": "[16]", "model.embedding_dim": 4}
GATE = {"snapshots.gate.calibration_min": 0.5, "snapshots.gate.calibration_max": 2}
# The event time, as a share of the whole, in which a broken tracker sends a click for every second
# impression.
BAD = (0.5, 0.6)


def break_the_tracker(logs):
    impressions = []
    for path in sorted((logs / "impressions").iterdir()):
        impressions += [(path.name, json.loads(line)) for line in path.read_text().splitlines()]
    times = sorted(shown["ts"] for _, shown in impressions)
    begin, end = (times[0] + share * (times[-1] - times[0]) for share in BAD)
    more = {}
    for name, shown in impressions:
        if begin <= shown["ts"] < end and shown["ts"] % 2 == 0:
            more.setdefault(name, []).append(
                {"ts": shown["ts"] + 20_000, "event_id": "bad-" + shown["impression_id"],
                 "impression_id": shown["impression_id"]})
    for name, events in more.items():
        log = logs / "clicks" / name
        events += [json.loads(line) for line in log.read_text().splitlines()]
        events.sort(key=lambda event: event["ts"])
        log.write_text("".join(json.dumps(event) + "\n" for event in events))


class Snapshots(sluice.Case):
    def setUp(self):
        super().setUp()
        self.config = sluice.generate(self.folder / "shop", *SHOP)
        break_the_tracker(self.folder / "shop")

    def snapshot(self, verb, data, *arguments, expect=0):
        done = sluice.call([sluice.BINARY, "snapshot", verb, self.folder / data, *arguments,
                            "--json"])
        self.assertEqual(done.returncode, expect, done.stderr)
        return json.loads(done.stdout) if expect == 0 else done.stderr

    def latest(self, data):
        return next(entry["sequence"] for entry in self.snapshot("list", data) if entry["latest"])

    def test_the_gate_holds_back_what_learned_a_bad_hour_and_changes_no_model(self):
        gated = self.replay(self.config, "gated", {**SETTINGS, **GATE})
        free = self.replay(self.config, "free", SETTINGS)
        self.assertEqual(gated["model_digest"], free["model_digest"])
        self.assertNotIn("candidate", free)
        entries = self.snapshot("list", "gated")
        self.assertEqual([entry["sequence"] for entry in entries],
                         [entry["sequence"] for entry in self.snapshot("list", "free")])
        candidate, = [entry for entry in entries if "candidate" in entry["names"]]
        self.assertEqual(gated["candidate"], candidate["sequence"])
        calibration = self.snapshot("show", "gated", "candidate")["window_metrics"]["ctr"]
        self.assertFalse(0.5 <= calibration["calibration"] <= 2, calibration)
        moved = self.snapshot("alias", "gated", "LATEST", "candidate")
        self.assertEqual(moved["snapshot"], candidate["sequence"])
        self.assertEqual(self.latest("gated"), candidate["sequence"])

    def test_a_rollback_outlasts_a_restart(self):
        settings = {**SETTINGS, **GATE, "snapshots.full_every": 3}
        self.replay(self.config, "data", settings)
        newest = self.latest("data")
        back = self.snapshot("rollback", "data")
        self.assertEqual(back["was"], newest)
        self.assertLess(back["latest"], newest)
        for checkpoint in sorted((self.folder / "data/models").glob("*/checkpoints/0*"))[1:]:
            checkpoint.rename(checkpoint.with_name(checkpoint.name + ".away"))
        self.replay(self.config, "data", settings)  # makes the last snapshots again
        self.assertEqual(self.latest("data"), back["latest"])

    def test_skipped_samples_are_named_and_nothing_else_of_the_lineage_changes(self):
        everything = self.replay(self.config, "all", SETTINGS)
        total = everything["samples"]
        first, last = total // 2, total * 6 // 10
        skip = ["--skip-samples", f"{first}..{last}"]
        skipping = self.replay(self.config, "skipping", SETTINGS, *skip, "--threads", 1)
        again = self.replay(self.config, "again", SETTINGS, *skip, "--threads", 2)
        self.assert_same(skipping, again)
        self.assertEqual(skipping["samples_digest"], everything["samples_digest"])
        self.assertNotEqual(skipping["model_digest"], everything["model_digest"])
        self.assertEqual(skipping["skipped"], last - first + 1)
        self.assertEqual(skipping["trained"] + skipping["skipped"], total)
        for entry in self.snapshot("list", "skipping"):
            manifest = self.snapshot("show", "skipping", str(entry["sequence"]))
            named = [part.get("skipped_samples") for part in manifest["lineage"]]
            expected = [None] if entry["sequence"] < first else [None, {"first": first,
                                                                        "last": last}]
            self.assertEqual(named, expected, entry["sequence"])
        before, = [e for e in self.snapshot("list", "all") if e["sequence"] < first][-1:]
        same = self.snapshot("diff", "all", str(before["sequence"]), str(before["sequence"]),
                             "--with", self.folder / "skipping")
        self.assertEqual({table["changed"] for table in same["tables"].values()}, {0})
        # Whoever goes on must say the same.
        done = self.replay(self.config, "skipping", SETTINGS, expect=2)
        self.assertIn("training.skip_samples", done.stderr)


if __name__ == "__main__":
    unittest.main()
