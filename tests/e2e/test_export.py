"""What `sluice snapshot export` writes gives, in the programs it is for, the scores of Sluice."""

import json
import random
import sys

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy

import sluice

sys.path.insert(0, str(sluice.ROOT / "docs" / "examples"))
import read_snapshot  # pylint: disable=wrong-import-position
import score_onnx  # pylint: disable=wrong-import-position

RATES = ("pctr", "pcvr", "pctcvr")
IMPRESSIONS = 10_000
GROUPED = {f"features.{name}.group": "context" for name in ("user", "interests", "price")}
# One of each form of rates and of towers that the built-in recipes have, and both precisions.
MODELS = {
    "esmm": {},
    "grouped": GROUPED,
    "bf16": {"model.precision": "bf16"},
    "two sets": {"model.recipe": "esmm_ns"},
    "ratio": {"model.recipe": "division"},
    "linear": {"model.recipe": "lr"},
    "fm": {"model.recipe": "fm"},
}


def strange(impressions, seed):
    """Some of them with ids that no sample has shown, some without features."""
    shuffled = random.Random(seed)
    made = []
    for line in impressions:
        impression = json.loads(line)
        draw = shuffled.random()
        if draw < 0.2:
            impression["features"] = {
                key: replaced(value) for key, value in impression["features"].items()}
        elif draw < 0.25:
            impression["features"] = {}
        elif draw < 0.3:
            impression["features"] = {key: {"no": ["value"]} for key in impression["features"]}
        made.append(impression)
    return made


def replaced(value):
    if isinstance(value, list):
        return [replaced(part) for part in value]
    if isinstance(value, str):
        return value + "-new"
    return value * 3 + 1 if isinstance(value, (int, float)) else value


@sluice.not_sanitized
class Export(sluice.Case):
    def export(self, data, form, out, expect=0):
        done = sluice.call([sluice.BINARY, "snapshot", "export", data, "--format", form,
                            "--out", out])
        self.assertEqual(done.returncode, expect, done.stderr)
        return done

    def sluice_rates(self, where, impressions):
        path = self.folder / "impressions.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in impressions))
        done = sluice.call([sluice.BINARY, "score", where, "--in", path])
        self.assertEqual(done.returncode, 0, done.stderr)
        scores = [json.loads(line) for line in done.stdout.splitlines()]
        return np.array([[score[rate] for rate in RATES] for score in scores])

    def assert_near(self, ours, theirs, tolerance):
        self.assertEqual(ours.shape, theirs.shape)
        self.assertLess(np.abs(ours - theirs).max(), tolerance)
        self.assertGreater(len(np.unique(ours[:, 0])), len(ours) // 20)

    def shop(self):
        shop = self.folder / "shop"
        config = sluice.generate(shop, "--impressions", 20_000, "--seed", 5)
        lines = []
        for log in sorted((shop / "impressions").rglob("*.jsonl*")):
            lines += (sluice.call(["zstdcat", log]).stdout if log.suffix == ".zst"
                      else log.read_text()).splitlines()
        return config, strange(random.Random(3).sample(lines, IMPRESSIONS), 4)

    def test_onnx_runtime_and_numpy_give_the_scores_of_sluice(self):
        config, impressions = self.shop()
        for name, settings in MODELS.items():
            with self.subTest(model=name):
                self.replay(config, name, settings)
                data = self.folder / name
                # A sum in another order may be rounded to the next bf16 number.
                tolerance = 1e-4 if name == "bf16" else 1e-6
                ours = self.sluice_rates(data, impressions)
                self.check_whole(data, impressions, ours, tolerance)
                self.check_towers(data, impressions[:1000], ours[:1000], tolerance)
                self.check_safetensors(data, impressions, ours)

    def check_whole(self, data, impressions, ours, tolerance):
        path = self.folder / "whole.onnx"
        self.export(data, "onnx", path)
        onnx.checker.check_model(onnx.load(path), full_check=True)
        model = score_onnx.OnnxModel(str(path))
        theirs = np.concatenate([model.rates(impressions[begin:begin + 500])
                                 for begin in range(0, len(impressions), 500)])
        self.assert_near(ours, theirs, tolerance)

    def check_towers(self, data, impressions, ours, tolerance):
        path = self.folder / "towers.onnx"
        self.export(data, "onnx-towers", path)
        onnx.checker.check_model(onnx.load(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path))
        flat = self.folder / "for towers"
        self.export(data, "safetensors", flat)
        inputs = {}
        for wanted in session.get_inputs():
            prefix = wanted.name.removeprefix("inputs").removeprefix(".")
            snapshot = SetOfSnapshot(flat, prefix)
            inputs[wanted.name] = np.stack([snapshot.inputs(one) for one in impressions])
        self.assert_near(ours, np.stack(session.run(list(RATES), inputs), 1), tolerance)
        sluice.shutil.rmtree(flat)

    def check_safetensors(self, data, impressions, ours):
        out = self.folder / "flat"
        self.export(data, "safetensors", out)
        self.assertTrue((self.sluice_rates(out, impressions) == ours).all())
        newest = sorted(data.glob("models/*/snapshots/[0-9]*"))[-1]
        if json.loads((newest / "manifest.json").read_text())["kind"] == "full":
            self.assertEqual((out / "weights.safetensors").read_bytes(),
                             (newest / "weights.safetensors").read_bytes())
        self.assertTrue(safetensors.numpy.load_file(out / "weights.safetensors"))
        sluice.shutil.rmtree(out)

    def test_what_cannot_be_written_is_said(self):
        config = sluice.generate(self.folder / "shop", "--impressions", 2_000, "--seed", 5)
        self.replay(config, "data")
        data = self.folder / "data"
        self.assertIn("onnx", self.export(data, "tflite", self.folder / "x", expect=2).stderr)
        done = self.export(data, "onnx", self.folder / "absent" / "x", expect=1)
        self.assertIn("absent", done.stderr)
        recipe = self.folder / "own.toml"
        text = (sluice.ROOT / "config" / "recipes" / "esmm.toml").read_text()
        recipe.write_text(text.replace('"sigmoid(cvr)"', '"sigmoid(softplus(cvr))"'))
        self.replay(config, "own", {"model.recipe": recipe})
        done = self.export(self.folder / "own", "onnx-towers", self.folder / "x", expect=1)
        self.assertIn("softplus", done.stderr)


class SetOfSnapshot(read_snapshot.Snapshot):
    """The rows of one embedding set."""

    def __init__(self, folder, name):
        super().__init__(folder)
        self.prefix = name + "." if name else ""

    def row(self, table, text):
        if not self.prefix:
            return super().row(table, text)
        key = read_snapshot.hash64(text, seed=read_snapshot.hash64(table))
        return self.row_of_key(self.prefix + table, key)
