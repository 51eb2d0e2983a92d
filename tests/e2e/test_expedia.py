"""Real logs: the exact labels, and metrics as good as an independent reference's."""

import sluice


@sluice.needs_expedia
class Expedia(sluice.Case):
    def test_labels_and_metrics(self):
        report = self.replay(sluice.EXPEDIA, "data")
        self.assertEqual(report["events"],
                         {"impressions": 25149, "clicks": 1110, "purchases": 673})
        self.assertEqual(report["labels"],
                         {"impressions": 25149, "clicked": 1110, "converted": 673})
        self.assertEqual(sum(report["refused"].values()), 0)
        self.assertEqual(report["trained"], report["samples"])
        # 449 purchases come before their click window closes: those impressions are one sample.
        self.assertEqual(report["samples"], 25149 + 1110 - 449)
        self.assertEqual(report["open"], {"impressions": 0, "waiting": 0})
        self.assertTrue(report["closed"] and report["reproducible"])
        self.assert_adds_up(report)
        # One-pass ESMM in PyTorch reaches .741, .796 and .858 on these logs.
        half = report["metrics"]["second_half"]
        self.assertGreaterEqual(half["ctr"]["auc"], 0.735)
        self.assertGreaterEqual(half["ctcvr"]["auc"], 0.79)
        self.assertGreaterEqual(half["cvr"]["auc"], 0.83)

    def test_a_finished_replay_reports_again(self):
        first = self.replay(sluice.EXPEDIA, "data")
        second = self.replay(sluice.EXPEDIA, "data")
        self.assert_same(first, second)
