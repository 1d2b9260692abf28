"""Certificates and decisions: slices, summaries, tables, and the accuracy that they certify."""

import dataclasses
import pickle
import re

import numpy as np
import pytest

from smoothcert import (
    Certificates,
    Decisions,
    ToleranceRadii,
    VoteCounts,
    certified_accuracy_envelope,
    certified_accuracy_score,
)
from smoothcert.results import summarize
from smoothcert.results.votes import Origin


@pytest.fixture
def certificates():
    return Certificates(
        labels=np.array(["a", "b", "a", "c"]),
        radii=np.array([0.5, np.nan, np.inf, 2.0]),
        abstained=np.array([False, True, False, False]),
        p_a=np.array([0.7, 0.4, 0.99, 0.9]),
        p_b=np.array([0.3, 0.6, 0.01, 0.05]),
        alpha=0.001,
        norm=1,
    )


def cells(shown):
    """Return the cells of an HTML table, without its header."""
    return [cell.strip() for cell in re.findall(r"<td[^>]*>([^<]*)</td>", shown._repr_html_())]


def test_certificates_unpack_and_slice(certificates):
    labels, radii = certificates
    assert labels is certificates.labels
    assert radii is certificates.radii
    assert len(certificates) == 4
    for rows in (slice(1, 3), [1, 2], np.array([False, True, True, False])):
        part = certificates[rows]
        assert part.labels.tolist() == ["b", "a"]
        assert part.radii[1] == np.inf
        assert part.alpha == 0.001
    assert certificates[-1].labels.tolist() == ["c"]
    with pytest.raises(IndexError):
        certificates[4]
    with pytest.raises(IndexError, match="Certificates takes a position, a slice or a mask of inputs, got"):
        certificates[[[0, 1]]]


def test_summaries(certificates):
    shown = "4 inputs, 1 abstained, median l1 radius of the others 2 against every perturbation, 1 safe against all"
    assert repr(certificates) == f"Certificates({shown}, alpha=0.001)"
    assert "1 abstained, median l1 radius of the others nan" in repr(certificates[1])
    assert "the others 1.004 against" in repr(dataclasses.replace(certificates, radii=np.full(4, 1.00499999)))
    other = dataclasses.replace(certificates, norm=2, threat="any pixel", alpha=0.5)
    assert "median l2 radius of the others 2 against any pixel, 1 safe against all, alpha=0.5" in repr(other)
    robust, n_samples = np.array([[True, False, False], [True, True, False]]), np.array([10, 31])
    several = Decisions(np.array(["a", "b"]), robust, n_samples, robust * 0.5, alpha=0.01, norm=2, threat="any pixel")
    words = "2 inputs, 2, 1, 0 robust in l2 against any pixel, 20 votes each on average, alpha=0.01"
    assert repr(several) == f"Decisions({words})"
    assert repr(several[:0]).startswith("Decisions(0 inputs, 0, 0, 0 robust in l2 against any pixel, 0 votes each")
    counts = np.array([[3, 1]])
    votes = VoteCounts(counts, counts * 2, np.zeros((1, 16), np.uint8), Origin("SplitNoise()", "b", 0, "m", "c", (3,)))
    assert repr(votes) == "VoteCounts(1 inputs, 2 classes, up to 4 selection and 8 estimation votes each, SplitNoise())"
    assert repr(votes[:0]) == "VoteCounts(0 inputs, 2 classes, SplitNoise())"


def test_certificates_are_frozen(certificates):
    with pytest.raises(dataclasses.FrozenInstanceError):
        certificates.alpha = 0.5
    for copy in (certificates, certificates[:2], pickle.loads(pickle.dumps(certificates))):
        with pytest.raises(ValueError, match="read-only"):
            copy.radii[0] = 100


def test_certified_accuracy_counts_abstentions_as_wrong(certificates):
    y = np.array(["a", "b", "a", "c"])
    assert certified_accuracy_score(y, certificates, 0) == 0.75
    assert certified_accuracy_score(y, certificates, 0.5) == 0.75
    np.testing.assert_array_equal(certified_accuracy_score(y, certificates, [0.6, 2, 1e9]), [0.5, 0.5, 0.25])
    assert certified_accuracy_score(np.array(["c"] * 4), certificates, 0) == 0.25


def test_radii_of_right_labels(certificates):
    np.testing.assert_array_equal(certificates.radii_if_right(["a", "b", "c", "c"]), [0.5, np.nan, np.nan, 2.0])


@pytest.mark.parametrize("change", [{"alpha": 0.01}, {"norm": 2}, {"threat": "any pixel"}, {"n_samples": np.arange(4)}])
def test_parts_of_different_kinds_are_not_joined(certificates, change):
    (name,) = change
    with pytest.raises(ValueError, match=rf"parts must belong to one run, but part 2 has {name}=.* and part 0 has"):
        Certificates.concatenate([certificates, certificates, dataclasses.replace(certificates, **change)])
    counts = np.array([[3, 1]])
    votes = VoteCounts(counts, counts, np.zeros((1, 16), np.uint8), Origin("n", "b", 0, "m", "c", (3,)))
    with pytest.raises(ValueError, match="parts must be one or more Certificates, got VoteCounts"):
        Certificates.concatenate([certificates, votes])


def test_envelope_is_the_best_at_each_radius_and_refuses_mixed_norms(certificates):
    y = np.array(["a", "b", "a", "c"])
    other = dataclasses.replace(certificates, radii=np.array([0.1, 0.9, 0.9, 0.9]))
    best = certified_accuracy_envelope(y, [certificates, other], [0.3, 0.8, 1.0])
    np.testing.assert_array_equal(best, [0.75, 0.75, 0.5])
    assert certified_accuracy_envelope(y, [certificates], 0) == 0.75
    with pytest.raises(ValueError, match=r"certificates must be of one kind, got \['l1 against every .*', 'l2 against"):
        certified_accuracy_envelope(y, [certificates, dataclasses.replace(certificates, norm=2)], 0)
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        certified_accuracy_envelope(y, [], 0)
    limited = dataclasses.replace(certificates, threat="perturbations with max_features=2")
    with pytest.raises(ValueError, match=r"must be of one kind, got .*max_features=2"):
        certified_accuracy_envelope(y, [certificates, limited], 0)


def test_certified_accuracy_of_something_else(certificates):
    y = ["a", "b", "a", "c"]
    with pytest.raises(ValueError, match="certificates must be the Certificates that certify returns, got tuple"):
        certified_accuracy_score(y, tuple(certificates), 0)
    decisions = Decisions(np.array(y), np.ones(4, dtype=bool), np.full(4, 9), np.full(4, 0.5), alpha=0.1, norm=1)
    for score in (certified_accuracy_score, certified_accuracy_envelope):
        given = decisions if score is certified_accuracy_score else [decisions]
        with pytest.raises(ValueError, match=r"got Decisions\. Use clf\.certify\(X\)\. Decisions at a radius have"):
            score(y, given, 0.5)
    held = {"predictions": np.zeros(4), "radii": np.ones(4), "abstained": np.zeros(4, dtype=bool)}
    radii = ToleranceRadii(**held, tolerance=np.ones(4), quantile=0.5, alpha=0.1, norm=1)
    with pytest.raises(ValueError, match="must be the Certificates that certify returns, got ToleranceRadii"):
        certified_accuracy_score(np.zeros(4), radii, 0.5)
    with pytest.raises(ValueError, match="must be the Certificates that certify returns, got ToleranceRadii"):
        summarize(radii, np.zeros(4), [0.5])
    with pytest.raises(ValueError, match="radius must hold numbers of at least 0, got '1'"):
        certified_accuracy_score(y, certificates, "1")
    for radius in (-1, np.nan, [0, -0.1]):
        with pytest.raises(ValueError, match="radius must hold numbers of at least 0"):
            certified_accuracy_score(y, certificates, radius)
    with pytest.raises(ValueError, match=r"y must hold labels like the classes, .*a.*, got .*0"):
        certified_accuracy_score([0, 1, 0, 2], certificates, 0)


def test_certified_accuracy_of_unequal_lengths(certificates):
    with pytest.raises(ValueError, match=r"y must hold one label for each of 4 inputs, got shape \(3,\)"):
        certified_accuracy_score(["a", "b", "c"], certificates, 0)
    with pytest.raises(ValueError, match="certificates must hold at least one input"):
        certified_accuracy_score([], certificates[:0], 0)


def test_frames_have_one_row_per_input(certificates):
    frame = dataclasses.replace(certificates, n_samples=np.arange(4)).to_frame()
    assert list(frame.columns) == ["label", "radius", "abstained", "p_a", "p_b", "margin", "n_samples"]
    assert frame["label"].tolist() == ["a", "b", "a", "c"]
    np.testing.assert_array_equal(frame["radius"], certificates.radii)
    np.testing.assert_array_equal(frame["margin"], certificates.margin)
    assert frame.attrs == {"alpha": 0.001, "norm": 1, "threat": "every perturbation"}
    frame.loc[0, "radius"] = 100.0
    assert certificates.radii[0] == 0.5
    assert "n_samples" not in certificates.to_frame()
    assert certificates.to_frame().attrs == frame.attrs
    failed = dataclasses.replace(certificates, failed=np.array([False, True, False, False])).to_frame()
    assert list(failed.columns) == ["label", "radius", "abstained", "p_a", "p_b", "margin", "failed"]
    assert failed["failed"].tolist() == [False, True, False, False]
    decisions = Decisions(np.array(["a"]), np.array([True]), np.array([9]), np.array([0.5]), alpha=0.1, norm=2)
    assert decisions.to_frame().to_dict("records") == [{"labels": "a", "robust": True, "n_samples": 9, "radius": 0.5}]


def test_summary_in_all_its_forms(certificates):
    y = ["a", "b", "a", "a"]
    table = certificates.summary(y, [0, 0.5, 0.75])
    note = "4 inputs, 1 abstained, against every perturbation, alpha=0.001"
    assert str(table).splitlines() == [
        "l1 radius  certified accuracy",
        "        0               0.500",
        "      0.5               0.500",
        "     0.75               0.250",
        note,
    ]
    assert table.to_markdown().splitlines()[:3] == [
        "|   l1 radius |   certified accuracy |",
        "|------------:|---------------------:|",
        "|           0 |                0.500 |",
    ]
    np.testing.assert_array_equal(table.to_frame()["certified accuracy"], [0.5, 0.5, 0.25])
    assert table.to_frame().index.name == "l1 radius"
    assert cells(table) == ["0", "0.500", "0.5", "0.500", "0.75", "0.250"]
    assert table._repr_html_().endswith(f"<p>{note}</p>")
    assert str(certificates.summary(y, 0.5)).splitlines()[1].split() == ["0.5", "0.500"]
    with pytest.raises(ValueError, match="y must hold one label"):
        certificates.summary(y[1:], [0])
    with pytest.raises(ValueError, match="radius must hold numbers of at least 0"):
        certificates.summary(y, [-1])


def test_summary_of_several_classifiers_escapes_their_names(certificates):
    other = dataclasses.replace(certificates, radii=np.full(4, np.nan), abstained=np.full(4, True), alpha=0.01, norm=1)
    table = summarize({"50% & a_b\\|": certificates, "<script>": other}, ["a", "b", "a", "a"], [0])
    assert table.note == "4 inputs, 1 to 4 abstained, against every perturbation, alpha=0.001 or 0.01"
    latex, markdown = (" ".join(text.split()) for text in (table.to_latex(), table.to_markdown()))
    assert (
        r"\toprule $\ell_{1}$ radius & 50\% \& a\_b\textbackslash{}| & \ensuremath{<}script\ensuremath{>} \\" in latex
    )
    assert r"\midrule 0 & 0.500 & 0.000 \\ \bottomrule \end{tabular} % 4 inputs, 1 to 4 abstained" in latex
    assert r"| l1 radius | 50% & a_b\\| | <script> |" in markdown
    assert "&lt;script&gt;" in table._repr_html_()
    assert "<script>" not in table._repr_html_()
    with pytest.raises(ValueError, match="must be of one kind"):
        summarize({"l1": certificates, "l2": dataclasses.replace(other, norm=2)}, ["a", "b", "a", "a"], [0])
    three = {str(n): dataclasses.replace(other, abstained=np.arange(4) < n) for n in (3, 0, 2)}
    assert summarize(three, ["a", "b", "a", "a"], [0]).note.startswith("4 inputs, 0 to 3 abstained, against")
    endless = dataclasses.replace(certificates, norm=np.inf).summary(["a", "b", "a", "a"], [0])
    assert r"$\ell_{\infty}$ radius" in endless.to_latex()
    assert r"$\ell_{2}$ radius" in dataclasses.replace(certificates, norm=2).summary(["a"] * 4, [0]).to_latex()


def test_notebooks_show_escaped_rows_with_numbers_rounded_down(certificates):
    evil = dataclasses.replace(
        certificates, labels=np.array(["<b>", "x", "y", "&"]), radii=np.array([0.29999, np.nan, np.inf, 2 / 3])
    )
    evil = dataclasses.replace(evil, p_b=np.array([0.12341, 0.6, 1 / 3, 0.05]))
    shown = evil._repr_html_()
    assert {"&lt;b&gt;", "&amp;", "0.2999", "0.6666", "0.1235", "0.3334", "0.05001", "nan", "inf"} <= set(cells(evil))
    assert "<b>" not in shown
    assert "4 inputs, 1 abstained" in shown
    many = evil[np.arange(40) % 4]
    assert many._repr_html_().count("<tr>") == 12
    assert cells(many)[-6:] == ["..."] * 6
    assert "..." not in cells(many[:10])
    assert cells(many[:11])[-6:] == ["..."] * 6
