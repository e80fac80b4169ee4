"""The table of a comparison of methods: what is compared with what, and the same numbers in every format."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from dmgd.classes.info import ClassInfo
from dmgd.evaluation.comparison import Evaluation, Score
from dmgd.evaluation.comparison_formats import as_csv, as_latex, as_markdown, trainings_csv
from dmgd.evaluation.comparison_table import Comparison
from dmgd.evaluation.comparison_views import main_tables, tables
from dmgd.evaluation.dd_ranking import augmentation_robust_score, label_robust_score
from dmgd.evaluation.protocols import PROTOCOLS, resolved
from dmgd.evaluation.results import Result, SetFacts
from dmgd.evaluation.significance import holm, statement
from dmgd.evaluation.train import Training
from dmgd_cli.output import print_comparison

CLASSES = (ClassInfo("cat"), ClassInfo("dog"))
PLAIN = {"augmentation": ("normalise",)}
SOFT = {"protocol": "rded-soft", "network": "resnet-18", "teacher": {"name": "teacher.pt", "top1": 91.2}}


def training(top1, seed=0):
    confusion = torch.tensor([[round(10 * top1), 1000 - round(10 * top1)], [0, 1000]])
    return Training(seed, ((1, top1 - 5, 1.0), (2, top1, 0.5)), confusion, 12.5)


def row(method, *by_seed, ipc=10, network="convnet-3", protocol="quick", teacher=None, pixels=1024, **changes):
    """A result for the accuracy of every seed, or several for a list of accuracies."""
    images = 500 if ipc is None else 2 * ipc
    found = []
    for seed, accuracies in enumerate(by_seed):
        seconds = {} if method in ("random", "full") else {"statistics": 3.0, "sampling": 45.25}
        facts = SetFacts(method, ipc, seed, images, images * pixels, images * 900, 4000 if teacher else 0, seconds)
        chosen = replace(PROTOCOLS[protocol], network=network)
        terms = resolved(chosen, num_images=images, num_classes=2, source_size=32)
        for repeat, top1 in enumerate(np.atleast_1d(accuracies).tolist()):
            found.append(Result(facts, replace(terms, **changes), repeat, training(top1), teacher))
    return found


def compared(*rows, source="pets"):
    settings = {"source": {"name": source, "variant": None, "test_images": 2000}}
    return Comparison(tuple(result for row in rows for result in row), CLASSES, settings)


def rows_of(comparison):
    return {(one["method"], one["ipc"], one["protocol"], one["network"]): one for one in comparison.to_json()["rows"]}


SMALL = (
    row("dmgd", 62.0, 63.5, 61.0),
    row("dmgd", 51.0, 51.5, 52.0, ipc=1),
    row("random", 50.0, 51.0, 49.5),
    row("random", 40.0, 39.0, 41.5, ipc=1),
    row("kmeans-real", 55.0, 56.5, 57.0),
    row("full", 90.0, 91.0, 92.0, ipc=None),
)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 30])
def test_holm_rejects_what_the_step_down_procedure_rejects(count):
    ps = np.random.default_rng(count).uniform(0, 0.02, count).round(5).tolist() + [0.01] * min(count, 2)
    corrected = holm(ps)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        rejected = set()
        for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
            if ps[index] > level / (len(ps) - rank):
                break
            rejected.add(index)
        assert {i for i, p in enumerate(corrected) if p <= level} == rejected
    assert holm([0.01, 0.04, 0.03, 0.5]) == [0.04, 0.09, 0.09, 0.5]


def test_differences_are_paired_by_the_seed_of_the_set_and_corrected_for_all_of_them():
    found = rows_of(compared(*SMALL))
    against = found["dmgd", 10, "quick", "convnet-3"]["against"]
    assert against["random"]["difference"] == pytest.approx((12 + 12.5 + 11.5) / 3)
    assert against["strongest selection"]["name"] == "kmeans-real"
    ps = {
        "random": ttest_rel([62.0, 63.5, 61.0], [50.0, 51.0, 49.5]).pvalue,
        "kmeans-real": ttest_rel([62.0, 63.5, 61.0], [55.0, 56.5, 57.0]).pvalue,
        "kmeans-real itself": ttest_rel([55.0, 56.5, 57.0], [50.0, 51.0, 49.5]).pvalue,
        "IPC 1": ttest_rel([51.0, 51.5, 52.0], [40.0, 39.0, 41.5]).pvalue,  # random is the strongest there: once
    }
    assert against["random"]["p"] == pytest.approx(ps["random"], rel=1e-3)
    assert against["random"]["p_holm"] == pytest.approx(4 * min(ps.values()), rel=1e-3)
    at_1 = found["dmgd", 1, "quick", "convnet-3"]["against"]
    assert at_1["random"] == at_1["strongest selection"]
    assert compared(*SMALL).to_json()["tests"]["count"] == 4
    assert found["full", None, "quick", "convnet-3"]["against"] == {}
    assert found["random", 10, "quick", "convnet-3"]["against"] == {}
    assert set(found["kmeans-real", 10, "quick", "convnet-3"]["against"]) == {"random"}


def test_repeats_are_pooled_in_the_mean_but_are_no_seeds():
    found = rows_of(compared(row("dmgd", [60, 64], [63, 65]), row("random", [50, 52], [51, 57])))
    own = found["dmgd", 10, "quick", "convnet-3"]
    assert own["top1"] == {"mean": 63.0, "std": 1.871, "n": 4}
    assert own["against"]["random"]["seeds"] == 2
    assert own["against"]["random"]["p"] == pytest.approx(ttest_rel([62, 64], [51, 54]).pvalue, rel=1e-3)


def test_one_seed_is_no_test_and_missing_seeds_are_said():
    alone = compared(row("dmgd", 60.0), row("random", 50.0)).to_json()
    assert alone["rows"][0]["against"]["random"]["p_holm"] is None
    assert alone["summary"] == ["dmgd is above random (not tested), above the strongest selection (not tested)"]
    assert "only one seed of each set: differences cannot be tested" in alone["warnings"]
    assert "No difference could be tested." in tables(alone)[0].notes
    short = compared(row("dmgd", 60.0, 61.5), row("random", 50.0, 51.0, 58.0), row("dit", 52.0, 53.0, 55.0)).to_json()
    assert short["rows"][0]["against"]["random"] == short["rows"][0]["against"]["random"] | {
        "difference": 10.25,
        "seeds": 2,
    }
    assert short["warnings"] == [
        "incomplete, compared by the seeds that both have: dmgd (IPC 10, quick, convnet-3) 2 of 3 trainings, 2 of 3 "
        "seeds"
    ]
    lacking = compared(row("dmgd", 60.0, 61.5, ipc=1), row("random", 50.0, 51.0, ipc=1), row("random", 60.0, 63.0))
    assert "dmgd (IPC 10, quick, convnet-3) 0 of 2 trainings, 0 of 2 seeds" in lacking.to_json()["warnings"][0]


def test_a_statement_gives_the_verdict_of_the_corrected_p():
    paired = {"difference": 1.2, "seeds": 3, "interval": [0.2, 2.2], "p": 0.02, "p_holm": 0.08}
    assert statement("a", "b", paired, 4) == (
        "a is 1.2 points above b: not significant (95 % interval +0.2 to +2.2, p = 0.020, p = 0.080 by Holm over 4 "
        "comparisons, 3 paired seeds)"
    )
    assert "above b: significant" in statement("a", "b", paired)


def test_evaluate_against_several_sets_corrects_for_their_number():
    def score(name, *accuracies):
        return Score(name, name, 20, tuple(training(top1, seed) for seed, top1 in enumerate(accuracies)))

    def said(*others):
        settings = {"source": {"name": "pets"}, "protocol": {"loss": "hard"}}
        scores = (score("run", 62, 63, 64), *(score(*other) for other in others))
        return Evaluation(settings, scores, {}, (), (), 1.0).to_json()

    below, level = ("random", 59.5, 59.6, 62.5), ("other", 61.5, 63.5, 63)
    alone, several = said(below), said(below, level, ("equal", 61, 62, 63))
    p, p_level = (ttest_rel([62, 63, 64], one[1:]).pvalue for one in (below, level))
    assert p < 0.05 < 2 * p < p_level
    assert alone["paired"][0]["p"] == alone["paired"][0]["p_holm"] == pytest.approx(p, rel=1e-3)
    assert [one["p_holm"] for one in several["paired"]] == [
        pytest.approx(2 * p, rel=1e-3),
        pytest.approx(p_level, rel=1e-3),
        None,
    ]
    assert "above random: significant" in alone["statements"][0]
    assert "above random: not significant" in several["statements"][0]
    assert "p = 0.046, p = 0.092 by Holm over 2 comparisons" in several["statements"][0]


# Accuracies of three runs, and the means and standard deviations that ddranking 0.2.0 (PyPI) computes from them: its
# LabelRobustScoreHard, LabelRobustScoreSoft and AugmentationRobustScore.compute_metrics were called with an object as
# self whose _compute_…_helper methods return these accuracies one after another.
FULL, HARD, RANDOM = (0.913, 0.921, 0.9), (0.541, 0.562, 0.488), (0.502, 0.471, 0.513)
SOFT_LABELS, RANDOM_SOFT = (0.713, 0.689, 0.701), (0.655, 0.702, 0.62)
UNAUGMENTED, RANDOM_UNAUGMENTED = (0.402, 0.388, 0.35), (0.377, 0.391, 0.342)
LRS_HARD = (0.2015680442855717, 0.012399772285885024)
LRS_SOFT = (0.2026332740893045, 0.004359410775362855)
ARS = (0.27873206876863016, 0.009713732230742901)


def test_lrs_and_ars_are_those_of_the_package_dd_ranking():
    for expected, score, *accuracies in (
        (LRS_HARD, label_robust_score, FULL, HARD, HARD, RANDOM),
        (LRS_SOFT, label_robust_score, FULL, HARD, SOFT_LABELS, RANDOM_SOFT),
        (ARS, augmentation_robust_score, HARD, RANDOM, UNAUGMENTED, RANDOM_UNAUGMENTED),
    ):
        scores = [score(*run) for run in zip(*accuracies, strict=True)]
        assert (np.mean(scores), np.std(scores)) == pytest.approx(expected, abs=1e-9)


def test_scores_of_dd_ranking_take_hard_labels_from_the_network_s_hard_protocol():
    def percent(accuracies):
        return [100 * accuracy for accuracy in accuracies]

    hard = {"network": "resnet-18"}
    found = rows_of(
        compared(
            row("dmgd", *percent(HARD), **hard),
            row("random", *percent(RANDOM), **hard),
            row("full", *percent(FULL), ipc=None, **hard),
            row("dmgd", *percent(UNAUGMENTED), **hard, **PLAIN),
            row("random", *percent(RANDOM_UNAUGMENTED), **hard, **PLAIN),
            row("dmgd", *percent(SOFT_LABELS), **SOFT),
            row("random", *percent(RANDOM_SOFT), **SOFT),
        )
    )
    own, soft = found["dmgd", 10, "quick", "resnet-18"], found["dmgd", 10, "rded-soft", "resnet-18"]
    assert len(found) == 5  # trainings without augmentation are no rows
    assert own["hlr"] == {"mean": 38.1, "std": 2.255, "n": 3}
    assert own["ior"]["mean"] == 3.5
    assert own["lrs"] == {"mean": round(100 * LRS_HARD[0], 3), "std": round(100 * LRS_HARD[1], 3), "n": 3}
    assert own["ars"]["mean"] == round(100 * ARS[0], 3)
    assert own["of_full"] == round(100 * np.mean(HARD) / np.mean(FULL), 3)
    assert (soft["lrs"]["mean"], soft["hlr"]) == (round(100 * LRS_SOFT[0], 3), own["hlr"])
    assert soft["ars"] is None
    assert soft["of_full"] is None
    assert found["full", None, "quick", "resnet-18"]["lrs"] is None


def students(*on_set, networks=("convnet-3", "resnet-18", "resnetap-10", "resnet-101")):
    rows = [row("dmgd", value, network=name) for name, value in zip(networks, on_set, strict=False)]
    rows += [
        row("full", value, network=name, ipc=None) for name, value in zip(networks, (80, 85, 90, 95), strict=False)
    ]
    return compared(*rows[: len(on_set)], *rows[len(on_set) :][: len(on_set)]).to_json()["students"]


def test_students_are_ordered_on_the_set_and_on_all_images():
    (same,) = students(50, 51, 60, 61)
    assert (same["tau"], same["order"]) == (1, ["resnet-101", "resnetap-10", "resnet-18", "convnet-3"])
    assert same["statement"] == "dmgd, IPC 10, quick: the set orders the 4 networks as all images do (τ 1.00)"
    (swapped,) = students(50, 60, 51, 61)
    assert swapped["tau"] == round(4 / 6, 4)  # five pairs agree, one does not
    assert swapped["statement"].endswith(
        "the set swaps 1 of the 6 pairs of networks (τ 0.67): resnet-18 and resnetap-10"
    )
    (tied,) = students(50, 51, 60, 60)
    assert tied["tau"] == pytest.approx(5 / (5 * 6) ** 0.5, abs=1e-4)  # τ-b
    assert "equal" in tied["statement"]
    (two,) = students(50, 51)
    assert (two["tau"], two["statement"]) == (None, None)
    assert students(50) == []
    alone = compared(*(row("dmgd", 50, network=name) for name in ("convnet-1", "convnet-2", "convnet-3"))).to_json()
    assert (alone["students"][0]["tau"], alone["students"][0]["order_full"]) == (None, None)


def test_unequal_budgets_and_pixels_are_warned_of():
    mixed = compared(
        row("dmgd", 60, 61),
        row("random", 50, 51, epochs=9),
        row("idc", 62, 63, pixels=4096),
        row("full", 9, 9, ipc=None, epochs=90),
    ).to_json()["warnings"]
    assert mixed[0] == (
        "unequal budgets, IPC 10, quick, convnet-3: dmgd epochs 500, steps 500; random epochs 9, steps 9; "
        "idc epochs 500, steps 500"
    )
    assert mixed[1] == (
        "unequal budgets, quick: 720 steps on all images, 500 on a set of IPC 10, 9 on a set of IPC 10; HLR and % of "
        "full compare them"
    )
    assert compared(*SMALL[2:3], SMALL[-1]).to_json()["warnings"] == []  # 500 and 504 steps
    assert mixed[2] == "unequal pixels, IPC 10: dmgd 20,480; random 20,480; idc 81,920"


def test_published_figures_stand_beside_those_of_the_same_terms():
    terms = {"protocol": "minimax-sgd", "network": "resnetap-10"}
    found = compared(row("mgd3", 60, **terms), row("dmgd", 60, epochs=3, **terms), source="imagenette")
    own, shortened = (one["published"] for one in found.to_json()["rows"])
    assert [one["value"] for one in own] == [66.4, 61.9, 64.3]
    assert own[1]["note"] == "lowest re-run by others"
    assert shortened[0]["note"] == "the paper's method, not the default here; here 3 epochs, not 2000"
    others = compared(row("mgd3", 60, network="resnetap-10"), row("mgd3", 60, ipc=11, **terms), source="imagenette")
    assert [one["published"] for one in others.to_json()["rows"]] == [[], []]
    assert "68.4 [3]" in str(tables(found.to_json())[-1].rows)


def test_all_formats_show_the_same_numbers(capsys):
    result = json.loads(json.dumps(compared(*SMALL, row("dmgd", 70, 71, 72, **SOFT)).to_json()))
    print_comparison(result)
    said = capsys.readouterr().out
    markdown = re.sub(r"\\(.)", r"\1", re.sub(r"\| \*\*(.*?)\*\* (?=\|)", r"| \1 ", as_markdown(result)))
    latex = re.sub(r"\\textbf\{(.*?)\}(?= [&\\])", r"\1", as_latex(result)).replace("--", "–")
    for symbol, command in {"±": "\\pm", "*": "^{*}", "†": "^{\\dagger}", "-": "-", "<": "<"}.items():
        latex = latex.replace(f"${command}$", symbol)
    for cells in (cells for table in main_tables(result) for cells in table.rows):
        assert re.search(r"│ *" + r" *│ *".join(map(re.escape, cells)) + r" *│", said), cells
    for cells in (cells for table in tables(result) for cells in table.rows):
        assert f"| {' | '.join(cells)} |" in markdown
        assert f"    {' & '.join(cells)} \\\\" in latex
    first, soft = tables(result)[:2]
    assert (first.section_ends, first.best) == ({1, 4}, {(0, 2), (2, 2)})
    assert [cells[0] for cells in soft.rows] == ["dmgd"]
    assert "**62.2 ± 1.0\\*†**" in as_markdown(result)
    assert "\\textbf{62.2 $\\pm$ 1.0$^{*}$$^{\\dagger}$}" in as_latex(result)
    lines = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert [float(line["top1_mean"]) for line in lines] == [one["top1"]["mean"] for one in result["rows"]]
    assert [line["against_random_p_holm"] for line in lines] == [
        str(one["against"]["random"]["p_holm"]) if one["against"] else "" for one in result["rows"]
    ]
    trainings = list(csv.DictReader(io.StringIO(trainings_csv(result))))
    assert len(trainings) == 21
    assert max(map(len, said.splitlines())) <= 80
    assert "62.2 ± 1.0*†" in said
    assert "| dmgd | 10 | random | +12.0* | +10.8 to +13.2 | 0.002 |" in markdown


def test_many_networks_are_several_tables_of_the_width_of_a_terminal():
    names = [f"convnet-{depth}-w128" for depth in range(1, 8)]
    shown = tables(compared(*(row("dmgd", 60, 61, network=name) for name in names)).to_json())
    assert max(table.width for table in shown) <= 80
    last = [table for table in shown if "last epoch" in table.title]
    assert len(last) == 3
    assert [name for table in last for name in table.columns[2:]] == names


def test_names_of_methods_break_no_format():
    result = compared(row("a|b_c&d%{\\}~^$#<", 60, 61), row("random", 50, 52)).to_json()
    assert "| a\\|b\\_c&d%{\\\\}~^$#\\< |" in as_markdown(result)
    escaped = r"a|b\_c\&d\%\{\textbackslash{}\}\textasciitilde{}\textasciicircum{}\$\#$<$"
    assert f"    {escaped} & 10 &" in as_latex(result).replace("\\textbf", "")
    assert next(csv.DictReader(io.StringIO(as_csv(result))))["method"] == "a|b_c&d%{\\}~^$#<"
