"""What the demo learned: progressive metrics, and how close the predicted rates are to the true ones.

    demo_table.py REPORT PREDICTIONS TRUTH_DIR

REPORT and PREDICTIONS are what `sluice replay --report --predictions` wrote, TRUTH_DIR is the folder
of true rates that `sluice generate` wrote. Both halves of the table are over the second half of the
samples, each predicted before it was learned. Needs nothing but Python's standard library.
"""

import csv
import json
import math
import pathlib
import sys


def read_truth(folder):
    """impression_id -> (true pCTR, true pCVR)"""
    rates = {}
    for path in sorted(pathlib.Path(folder).glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rates[row["impression_id"]] = (float(row["pctr"]), float(row["pcvr"]))
    return rates


def read_predictions(path):
    """impression_id -> (pCTR, pCVR, pCTCVR), of the impressions first seen in the second half of the
    samples; and which of them were clicked."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seen = set()
    rates = {}
    clicked = set()
    for index, row in enumerate(rows):
        impression = row["impression_id"]
        if impression in seen:
            continue
        seen.add(impression)
        if index < len(rows) // 2:
            continue
        rates[impression] = (float(row["pctr"]), float(row["pcvr"]), float(row["pctcvr"]))
        if row["y"] == "1":
            clicked.add(impression)
    return rates, clicked


def compare(predicted, true):
    """Mean predicted / mean true, Pearson's correlation, mean absolute error / mean true."""
    count = len(true)
    mean_predicted = math.fsum(predicted) / count
    mean_true = math.fsum(true) / count
    pairs = [(p - mean_predicted, t - mean_true) for p, t in zip(predicted, true)]
    covariance = math.fsum(p * t for p, t in pairs)
    spread = math.fsum(p * p for p, _ in pairs) * math.fsum(t * t for _, t in pairs)
    correlation = covariance / math.sqrt(spread) if spread > 0 else math.nan
    error = math.fsum(abs(p - t) for p, t in zip(predicted, true)) / count
    return mean_predicted / mean_true, correlation, error / mean_true


def shown(value, digits):
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def main():
    report_path, predictions_path, truth_path = sys.argv[1:]
    with open(report_path, encoding="utf-8") as file:
        metrics = json.load(file)["metrics"]["second_half"]
    truth = read_truth(truth_path)
    predictions, clicked = read_predictions(predictions_path)
    missing = [impression for impression in predictions if impression not in truth]
    if missing or not predictions:
        sys.exit(f"demo_table: {len(missing)} of {len(predictions)} impressions have no true rate")

    true_rates = [truth[impression] for impression in predictions]
    true_columns = (
        [pctr for pctr, _ in true_rates],
        [pcvr for _, pcvr in true_rates],
        [pctr * pcvr for pctr, pcvr in true_rates],
    )
    predicted_columns = list(zip(*predictions.values()))

    print()
    print(" " * 10 + "against the labels".center(33) + "  against the true rates of all impressions")
    print(f"{'':10}{'AUC':>9}{'log loss':>11}{'pred/seen':>13}"
          f"  {'pred/true':>12}{'correlation':>14}{'mean error':>13}")
    for name, key, predicted, true in zip(
        ("CTR", "CVR", "CTCVR"), ("ctr", "cvr", "ctcvr"), predicted_columns, true_columns
    ):
        ratio, correlation, error = compare(predicted, true)
        of_labels = metrics[key]
        print(
            f"{name:10}{shown(of_labels['auc'], 4):>9}{shown(of_labels['log_loss'], 5):>11}"
            f"{shown(of_labels['calibration'], 3):>13}"
            f"  {shown(ratio, 3):>12}{shown(correlation, 3):>14}{error:>12.0%} "
        )
    mean_cvr = math.fsum(true_columns[1]) / len(predictions)
    mean_cvr_clicked = math.fsum(truth[impression][1] for impression in clicked) / max(1, len(clicked))
    print(
        f"\nOver the second half of the samples ({len(predictions):,} impressions), each predicted "
        "before it was learned.\nThe labels' CVR is over clicked impressions, the true one over all. "
        "Clicked impressions have a true CVR of\n"
        f"{mean_cvr_clicked:.2%}, all of them {mean_cvr:.2%}: a model of clicked impressions alone "
        f"would be at {mean_cvr_clicked / mean_cvr:.1f} pred/true.\n"
        "pred/... is the sum of predicted rates over the sum of labels or true rates, mean error the "
        "mean of\n|predicted - true| over the mean true rate."
    )


if __name__ == "__main__":
    main()
