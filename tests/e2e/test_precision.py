"""bf16 learns as well as f32: what it costs is less than what another seed does."""

import sluice

SEEDS = (1, 2, 3, 4)
RATES = ("ctr", "ctcvr")
METRICS = ("auc", "log_loss")


@sluice.slow
@sluice.not_sanitized
class Precision(sluice.Case):
    """Over the second half of the samples, each predicted before it was learned."""

    def metrics(self, config, precision, seed):
        settings = {"model.precision": precision, "model.seed": seed}
        report = self.replay(config, f"{precision}-{seed}", settings)
        return report["metrics"]["second_half"], report["model_digest"]

    def check(self, config):
        models = set()
        found = {}
        for precision in ("f32", "bf16"):
            for seed in SEEDS:
                metrics, model = self.metrics(config, precision, seed)
                models.add(model)
                for rate in RATES:
                    for metric in METRICS:
                        values = found.setdefault((rate, metric), {"f32": [], "bf16": []})
                        values[precision].append(metrics[rate][metric])
        self.assertEqual(len(models), 2 * len(SEEDS))
        for name, values in found.items():
            # The spread of the seeds, widened by its own width on both sides.
            low, high = min(values["f32"]), max(values["f32"])
            width = high - low
            for value in values["bf16"]:
                self.assertGreaterEqual(value, low - width, (name, values))
                self.assertLessEqual(value, high + width, (name, values))

    @sluice.needs_expedia
    def test_on_real_logs(self):
        self.check(sluice.EXPEDIA)

    def test_on_a_shop(self):
        self.check(sluice.generate(self.folder / "shop", "--impressions", 100_000, "--seed", 1))
