"""The field's table against a plain reimplementation of the field's analysis."""

import csv
from fractions import Fraction

import numpy as np
import pytest

from smoothcert import Certificates, certified_accuracy_score
from smoothcert.results.tables import rounded_down


def analysis(path, radius):
    """Certified accuracy as the field computes it from a file: mean(correct & radius >= r)."""
    with open(path) as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return np.mean([bool(int(row["correct"])) & (float(row["radius"]) >= radius) for row in rows])


def some_certificates(n=200, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    y, labels = rng.integers(classes, size=(2, n))
    labels = np.where(rng.random(n) < 0.6, y, labels)
    radii = rng.exponential(size=n)
    radii[:40] = rng.choice([0.0, 0.1 + 0.2, 0.3, 0.5, 1.0, 100.0, np.inf, 5e-324, 1e-7], size=40)
    abstained = rng.random(n) < 0.2
    radii[abstained] = np.nan
    p_a = rng.uniform(0.5, 1, n)
    return Certificates(labels, radii, abstained, p_a, 1 - p_a, alpha=0.001, norm=1), y


def test_the_fields_analysis_finds_the_same_curve(tmp_path):
    certificates, y = some_certificates()
    certificates.to_tsv(tmp_path / "certified.tsv", y)
    known = certificates.radii[np.isfinite(certificates.radii)]
    near = np.concatenate([known, np.nextafter(known, 0), np.nextafter(known, np.inf), [0, 1e9, np.inf]])
    for radius in near:
        found = analysis(tmp_path / "certified.tsv", radius)
        assert found == certified_accuracy_score(y, certificates, radius)
    # The cases that matter are there: an abstention whose label is right, and correct ones at the same radius.
    assert (certificates.abstained & (certificates.labels == y)).any()
    assert len(np.unique(known)) < len(known)


def test_round_trip(tmp_path):
    certificates, y = some_certificates()
    certificates.to_tsv(tmp_path / "certified.tsv", y, idx=np.arange(len(y)) * 20)
    found, truth, idx = Certificates.from_tsv(tmp_path / "certified.tsv", alpha=0.001, norm=1)
    np.testing.assert_array_equal(found.radii, certificates.radii)
    np.testing.assert_array_equal(found.abstained, certificates.abstained)
    np.testing.assert_array_equal(found.labels, np.where(certificates.abstained, -1, certificates.labels))
    np.testing.assert_array_equal(truth, y)
    np.testing.assert_array_equal(idx, np.arange(len(y)) * 20)
    grid = np.unique(certificates.radii[~certificates.abstained])
    np.testing.assert_array_equal(
        certified_accuracy_score(truth, found, grid), certified_accuracy_score(y, certificates, grid)
    )
    assert np.isnan(found.margin).all()


@pytest.mark.parametrize("classes", [None, ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]])
def test_a_table_that_was_read_is_written_again(tmp_path, classes):
    # Abstentions were read as a label that no class has.
    certificates, y = some_certificates()
    certificates.to_tsv(tmp_path / "first.tsv", y)
    found, truth, idx = Certificates.from_tsv(tmp_path / "first.tsv", alpha=0.001, norm=1, classes=classes)
    found.to_tsv(tmp_path / "again.tsv", truth, idx=idx, classes=classes)
    assert (tmp_path / "again.tsv").read_text() == (tmp_path / "first.tsv").read_text()


def test_all_radii_read_back_as_the_same_floats(tmp_path):
    # From 1000 to 2**10, floats lie closest together for their number of digits.
    radii = np.linspace(1000, 1024, 200)
    none, p = np.zeros(len(radii), dtype=int), np.full(len(radii), 0.9)
    certificates = Certificates(none, radii, none > 0, p, 1 - p, alpha=0.001, norm=1)
    certificates.to_tsv(tmp_path / "certified.tsv", none)
    found = Certificates.from_tsv(tmp_path / "certified.tsv", alpha=0.001, norm=1).certificates
    np.testing.assert_array_equal(found.radii, radii)


@pytest.mark.parametrize("digits", [1, 3, 6, 17, 18])
def test_printed_radii_are_never_above_the_certified_ones(tmp_path, digits):
    certificates, y = some_certificates(seed=digits)
    certificates.to_tsv(tmp_path / "certified.tsv", y, digits=digits)
    with open(tmp_path / "certified.tsv") as file:
        printed = [row["radius"] for row in csv.DictReader(file, delimiter="\t")]
    checked = 0
    for text, radius in zip(printed, certificates.radii, strict=True):
        if np.isfinite(radius):
            shown, true = Fraction(text), Fraction(float(radius))
            assert shown <= true < shown + max(Fraction(true) / 10 ** (digits - 1), Fraction(1, 10**300))
            assert float(text) <= radius
            assert digits < 18 or float(text) == radius
            checked += 1
    assert checked > 100


def test_rounding_down_of_floats_at_the_ends_of_their_range():
    rng = np.random.default_rng(0)
    patterns = rng.integers(2**63 - 2**53, size=2000, dtype=np.int64).view(np.float64)
    for value in [*patterns[np.isfinite(patterns)], 2.0**-1074, np.finfo(float).max, 0.5 - 2**-54, 1 - 2**-53]:
        assert Fraction(rounded_down(value, 18)) <= Fraction(float(value))
        assert float(rounded_down(value, 18)) == value


def test_the_file_is_the_fields(tmp_path):
    certificates = Certificates(
        labels=np.array([3, 0, 7]),
        radii=np.array([1.23456, np.nan, np.inf]),
        abstained=np.array([False, True, False]),
        p_a=np.ones(3),
        p_b=np.zeros(3),
        alpha=0.001,
        norm=1,
    )
    certificates.to_tsv(tmp_path / "certified.tsv", [3, 0, 1], idx=[0, 20, 40], times=[1.5, 0, 3725], digits=3)
    assert (tmp_path / "certified.tsv").read_bytes().decode() == (
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
        "0\t3\t3\t1.23\t1\t0:00:01.500000\n"
        "20\t0\t-1\t0\t0\t0:00:00\n"
        "40\t1\t7\tinf\t0\t1:02:05\n"
    )
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(tmp_path / "certified.tsv", delimiter="\t")
    assert (frame["correct"] & (frame["radius"] >= 1)).mean() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("classes", "nobody"), [(["cat", "dog", "eel"], ""), ([-1, 1, 5], -2), (np.array([2, 4, 6], np.uint8), -1)]
)
@pytest.mark.parametrize("dtype", [None, object])
def test_other_labels_are_written_by_their_position(tmp_path, classes, nobody, dtype):
    numbered, truth = some_certificates(classes=3)
    names = np.array(classes, dtype=dtype)
    certificates = Certificates(
        names[numbered.labels], numbered.radii, numbered.abstained, numbered.p_a, numbered.p_b, alpha=0.001, norm=1
    )
    certificates.to_tsv(tmp_path / "named.tsv", names[truth], classes=classes)
    numbered.to_tsv(tmp_path / "numbered.tsv", truth)
    assert (tmp_path / "named.tsv").read_text() == (tmp_path / "numbered.tsv").read_text()
    found, y, _ = Certificates.from_tsv(tmp_path / "named.tsv", alpha=0.001, norm=1, classes=classes)
    assert y.tolist() == names[truth].tolist()
    assert found.labels.tolist() == [
        nobody if abstained else classes[label]
        for abstained, label in zip(numbered.abstained, numbered.labels, strict=True)
    ]
    assert certified_accuracy_score(y, found, 0.5) == certified_accuracy_score(truth, numbered, 0.5)
    with pytest.raises(ValueError, match=r"which classes=.* lacks. Append it to classes"):
        certificates.to_tsv(tmp_path / "none.tsv", names[truth], classes=classes[:2])
    with pytest.raises(ValueError, match="holds class 2, but classes are"):
        Certificates.from_tsv(tmp_path / "named.tsv", alpha=0.001, norm=1, classes=classes[:2])
    assert not (tmp_path / "none.tsv").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0\t1\t1\t0.5", "line 3 must hold 6 columns, got 4: the file is damaged or cut off"),
        ("0\t1\t1\t0.5\t1\tx\ty", "line 3 must hold 6 columns, got 7"),
        ("0\t1\tone\t0.5\t1\tx", "line 3 must hold numbers"),
        ("0\t1\t1\t1_0.91\t1\tx", "line 3 must hold numbers"),
        ("1_0\t1\t1\t0.91\t1\tx", "line 3 must hold numbers"),
        ("0\t1\t1\tnan\t1\tx", "line 3 must hold an idx and a label of at least 0"),
        ("0\t1\t1\t-0.5\t1\tx", "line 3 must hold an idx and a label of at least 0"),
        ("-7\t1\t1\t0.5\t1\tx", "line 3 must hold an idx and a label of at least 0"),
        ("0\t1\t1\t0.5\t1\tx", "line 3 must hold a new input, but line 2 has its idx=0 too"),
        (f"{2**63}\t1\t1\t0.5\t1\tx", r"line 3 must hold whole numbers below 2\*\*63"),
        (f"1\t{10**20}\t1\t0.5\t0\tx", r"line 3 must hold whole numbers below 2\*\*63"),
        ("0\t1\t-1\t0.5\t0\tx", "line 3 must hold an idx .* is 0 where the prediction is -1"),
        ("0\t1\t-2\t0.5\t0\tx", "line 3 must hold an idx and a label"),
        ("0\t-1\t-1\t0\t1\tx", "line 3 must hold an idx and a label"),
        ("0\t1\t2\t0.5\t1\tx", "line 3 says correct=1, but label=1 and predict=2"),
        ("0\t2\t2\t0.5\t0\tx", "line 3 says correct=0, but label=2 and predict=2"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, line, message):
    path = tmp_path / "certified.tsv"
    path.write_text(f"idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\t1\t0:00:01\n{line}\n")
    with pytest.raises(ValueError, match=f"certified.tsv, {message}"):
        Certificates.from_tsv(path, alpha=0.001, norm=1)


@pytest.mark.parametrize("content", [b"", b"\n", b"idx,label,predict,radius,correct,time\n", b"PK\x03\x04\xff\xfe\x00"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=r"other.tsv (must begin with the line 'idx label|is not a table)"):
        Certificates.from_tsv(tmp_path / "other.tsv", alpha=0.001, norm=1)


def test_a_table_without_times_and_one_of_another_platform(tmp_path):
    path = tmp_path / "certified.tsv"
    path.write_bytes(b"idx\tlabel\tpredict\tradius\tcorrect\r\n7\t1\t1\t0.5\t1\r\n\r\n9\t1\t-1\t0.0\t0\r\n")
    found, y, idx = Certificates.from_tsv(path, alpha=0.01, norm=2, threat="any pixel")
    assert (found.norm, found.alpha, found.threat) == (2, 0.01, "any pixel")
    assert (y.tolist(), idx.tolist()) == ([1, 1], [7, 9])
    np.testing.assert_array_equal(found.radii, [0.5, np.nan])


def test_arguments_that_do_not_fit(tmp_path):
    certificates, y = some_certificates()
    path = tmp_path / "certified.tsv"
    for arguments, message in [
        ({"y": y[1:]}, "y must hold one entry for each of the 200 certificates"),
        ({"y": y, "idx": [1]}, "idx must hold one entry"),
        ({"y": y, "idx": y + 0.5}, "idx must hold whole numbers"),
        ({"y": y, "times": y * np.nan}, "times must hold seconds, finite and at least 0"),
        ({"y": y, "digits": 0}, "digits must be a whole number of at least 1"),
        ({"y": y.astype(str)}, r"y must hold whole numbers from 0 to 2\*\*63 - 1.*classes=clf\.classes_"),
        ({"y": y, "idx": y - 5}, "idx must hold whole numbers of at least 0, all of them different"),
        ({"y": y, "idx": y * 0}, "idx must hold whole numbers of at least 0, all of them different"),
        ({"y": y.astype(np.uint64) + np.uint64(2**63)}, r"y must hold whole numbers from 0 to 2\*\*63 - 1"),
        ({"y": y - 5}, r"y must hold whole numbers from 0 to 2\*\*63 - 1"),
        ({"y": y, "classes": [1, 1]}, "classes must be distinct"),
    ]:
        with pytest.raises(ValueError, match=message):
            certificates.to_tsv(path, **arguments)
    assert not path.exists()
    certificates.to_tsv(path, y)
    for classes in ([True, False], [f"{i}" if i else "" for i in range(10)]):
        with pytest.raises(ValueError, match="classes"):
            Certificates.from_tsv(path, alpha=0.001, norm=1, classes=classes)
