"""A snapshot is read with public packages alone, and gives the scores that Sluice gives."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "docs" / "examples" / "read_snapshot.py"
SMALL_EXAMPLE = EXAMPLE.with_name("small_reader.py")
SLUICE = Path(os.environ.get("SLUICE_BUILD", REPOSITORY / "build" / "release")) / "sluice"
RATES = ("pctr", "pcvr", "pctcvr")
# Their columns come first: ids, a list of ids and a number to bucket.
GROUPED = ("user", "segment", "interests", "price")


def run(*command, text=""):
    result = subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise AssertionError(f"{command} ended with {result.returncode}:\n{result.stderr}")
    return result.stdout


def replace_values(value):
    """Ids and numbers that no sample has shown: the rows of the ids are not in the snapshot."""
    if isinstance(value, dict):
        return {key: replace_values(part) for key, part in value.items()}
    if isinstance(value, list):
        return [replace_values(part) for part in value]
    if isinstance(value, str):
        return value + "-new"
    return value * 3 + 1 if isinstance(value, (int, float)) else value


class SafetensorsScores(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        shop = Path(folder.name) / "shop"
        cls.shop = shop
        cls.data = Path(folder.name) / "data"
        run(SLUICE, "generate", "--out", shop, "--impressions", 20000, "--seed", 5)
        run(SLUICE, "replay", shop / "shop.toml", "--data-dir", cls.data)
        cls.grouped_data = Path(folder.name) / "grouped"
        settings = [f"--set=features.{name}.group=context" for name in GROUPED]
        run(SLUICE, "replay", shop / "shop.toml", "--data-dir", cls.grouped_data, *settings)
        cls.bf16_data = Path(folder.name) / "bf16"
        run(SLUICE, "replay", shop / "shop.toml", "--data-dir", cls.bf16_data,
            "--set=model.precision=bf16")
        logs = sorted((shop / "impressions").rglob("*.jsonl*"))
        cls.impressions = []
        for log in logs:
            text = run("zstdcat", log) if log.suffix == ".zst" else log.read_text()
            cls.impressions += list(itertools.islice(text.splitlines(), 500))
        cls.trained = len(cls.impressions)  # so many of them were in the logs
        unseen = [json.loads(line) for line in cls.impressions[:200]]
        for impression in unseen:
            impression["features"] = replace_values(impression["features"])
        cls.impressions += [json.dumps(impression) for impression in unseen]
        cls.impressions += [
            json.dumps({"ts": unseen[0]["ts"], "impression_id": 7}),
            json.dumps({"ts": unseen[0]["ts"], "impression_id": "typed", "features": {
                key: {"not": ["a", "value"]} for key in unseen[0]["features"]}}),
        ]

    def test_numpy_gives_the_scores_of_sluice(self):
        self.compare(self.data)

    def test_numpy_gives_the_scores_of_a_model_with_a_feature_group(self):
        self.compare(self.grouped_data)

    def test_numpy_gives_the_scores_of_a_model_in_bf16(self):
        # A sum in another order may be rounded to the next bf16 number, which few scores feel.
        self.compare(self.bf16_data, tolerance=1e-4)

    def test_numpy_gives_the_scores_of_recipes_like_esmm_and_refuses_others(self):
        for recipe, is_read in (("escm2_dr", True), ("dcmt:cvr_weight=0.5", True), ("base", False),
                                ("division", False), (self.write_recipe(), False)):
            data = self.data.parent / f"recipe-{len(list(self.data.parent.iterdir()))}"
            run(SLUICE, "replay", self.shop / "shop.toml", "--data-dir", data,
                f"--set=model.recipe={recipe}")
            if is_read:
                self.compare(data)
                continue
            snapshot = sorted(data.glob("models/*/snapshots/[0-9]*"))[-1]
            done = subprocess.run([sys.executable, EXAMPLE, snapshot], input=self.impressions[0],
                                  capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""), recipe)
            self.assertIn(f"recipe {Path(recipe).stem} are not worked out here", done.stderr)

    def write_recipe(self):
        path = self.shop / "own.toml"
        path.write_text('[towers]\nctr = {}\ncvr = {}\n[rates]\npctr = "sigmoid(ctr)"\n'
                        'pcvr = "sigmoid(ctr + cvr)"\npctcvr = "pctr * pcvr"\n'
                        '[[terms]]\nname = "ctr"\nloss = "bce(y, pctr)"\n'
                        '[[terms]]\nname = "ctcvr"\nloss = "bce(z, pctcvr)"\n')
        return path

    def test_the_small_reader_gives_the_scores_of_sluice(self):
        full = self.data.parent / "full"
        run(SLUICE, "snapshot", "export", self.data, "--format", "safetensors", "--out", full)
        text = "\n".join(self.impressions[:self.trained]) + "\n"
        ours = run(SLUICE, "score", full, text=text).splitlines()
        theirs = run(sys.executable, SMALL_EXAMPLE, full, text=text).splitlines()
        self.assertEqual(len(theirs), self.trained)
        for our_line, their_line in zip(ours, theirs, strict=True):
            our, their = json.loads(our_line), json.loads(their_line)
            for rate in RATES:
                self.assertLess(abs(our[rate] - their[rate]), 1e-6, our_line)
        self.assertGreater(len(set(theirs)), 300, "scores that hardly differ prove nothing")

    def compare(self, data, tolerance=1e-6):
        snapshot = sorted(data.glob("models/*/snapshots/[0-9]*"))[-1]
        text = "\n".join(self.impressions) + "\n"
        ours = run(SLUICE, "score", data, text=text).splitlines()
        theirs = run(sys.executable, EXAMPLE, snapshot, text=text).splitlines()
        self.assertGreater(len(self.impressions), 600)
        self.assertEqual(len(ours), len(self.impressions))
        self.assertEqual(len(theirs), len(self.impressions))
        different = set()
        deviations = []
        for our_line, their_line in zip(ours, theirs):
            our, their = json.loads(our_line), json.loads(their_line)
            self.assertEqual(list(our), list(their))
            self.assertEqual(our["impression_id"], their["impression_id"])
            for rate in RATES:
                deviations.append(abs(our[rate] - their[rate]))
                self.assertLess(deviations[-1], tolerance, our_line)
            different.add(our["pctr"])
        self.assertLess(statistics.median(deviations), 1e-7)
        self.assertGreater(len(different), 300, "scores that hardly differ prove nothing")

    def test_snapshot_verifies(self):
        listed = json.loads(run(SLUICE, "snapshot", "list", self.data, "--json"))
        self.assertEqual([entry["latest"] for entry in listed].count(True), 1)
        verified = json.loads(run(SLUICE, "snapshot", "verify", self.data, "--all", "--json"))
        self.assertEqual([entry["whole"] for entry in verified], [True] * len(listed))


if __name__ == "__main__":
    unittest.main()
