"""What an auditor finds in a store: forged counts, swapped inputs, another model, damage."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom
from sklearn.linear_model import LogisticRegression

from smoothcert import Certificates, SmoothedClassifier, stored_classifier, verify_store
from smoothcert.runs.database import StoreError, checksum, run_key
from smoothcert.runs.store import read_parts, read_status
from smoothcert.runs.verify_store import StoreAudit, _p_values

X = np.round(np.random.default_rng(0).random((60, 5)) * 255) / 255
Y = (X[:, 0] > 0.5).astype(int)
#: As wide as the seeds that stores draw.
SEED = 2**100 + 7
BASE = LogisticRegression(C=30).fit(X, Y)


def smoothed(base=BASE, **params):
    params = {"n_samples": 400, "alpha": 0.01, "batch_size": 512} | params
    return SmoothedClassifier.from_pretrained(base, [0, 1], **params)


def forge(path, change, table="results"):
    """Change the columns of records as somebody does who knows the format, with sums and checksums that fit."""
    with closing(sqlite3.connect(path)) as connection, connection:
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        rows = [dict(zip(names, row, strict=True)) for row in connection.execute(f"SELECT * FROM {table}")]
        for row in change(rows) or rows:
            columns = ", ".join(f"{name} = ?" for name in names)
            connection.execute(f"UPDATE {table} SET {columns} WHERE {names[0]} = ?", (*row.values(), row[names[0]]))
        sign(connection)


def sign(connection):
    """Make all checksums fit."""
    for table in ("run", "results", "failures", "labels"):
        for rowid, *row in connection.execute(f"SELECT rowid, * FROM {table}").fetchall():
            fits = checksum(tuple(row[:-1]), run_key(connection, table))
            connection.execute(f"UPDATE {table} SET checksum = ? WHERE rowid = ?", (fits, rowid))


def forge_counts(row, estimation):
    row["estimation"], row["n_samples"] = json.dumps(estimation), sum(estimation.values())


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "run.sqlite"
    smoothed(random_state=SEED).certify(X, store=path)
    return path


@pytest.mark.parametrize(
    "params", [{}, {"rtol": 0.2}, {"noise": "deterministic-split"}, {"noise": "gaussian"}], ids=repr
)
def test_honest_stores_pass(tmp_path, params):
    path = tmp_path / "run.sqlite"
    smoothed(**params, random_state=SEED).certify(X, store=path)
    for seed in range(3):
        audit = verify_store(path, stored_classifier(path, BASE), X, fresh=True, random_state=seed)
        assert audit.consistent, audit
        assert len(audit.rows) == 60
    assert repr(audit) == (
        "StoreAudit(consistent: of 60 recorded inputs, 0 are not those of X; of 60 checked, 0 have other votes, 0 "
        "differ from fresh votes; same model)"
    )
    assert len(verify_store(path, stored_classifier(path, BASE), X, fraction=0.1).rows) == 6


def test_honest_decisions_pass(tmp_path):
    path = tmp_path / "run.sqlite"
    smoothed(random_state=SEED).certify_at(X, [[0.2, 0.5]], store=path)
    assert verify_store(path, stored_classifier(path, BASE), X, fresh=True, random_state=0).consistent
    forge(path, lambda rows: rows[7].update(reach=b"\0" * len(rows[7]["reach"])))
    assert verify_store(path, smoothed(), X).rows[verify_store(path, smoothed(), X).other_votes].tolist() == [7]


@pytest.mark.parametrize("more", [1, -1])
def test_a_single_forged_count_is_found(store, more):
    def change(rows):
        votes = json.loads(rows[31]["estimation"])
        a, b = votes.get("0", 0) + more, votes.get("1", 0) - more
        forge_counts(rows[31], {i: n for i, n in (("0", a), ("1", b)) if n})

    before = json.loads(sqlite3.connect(store).execute("SELECT estimation FROM results WHERE input=31").fetchone()[0])
    assert min(before.get("0", 0), before.get("1", 0)) > 1
    forge(store, change)
    audit = verify_store(store, smoothed(), X)
    assert not audit.consistent
    assert audit.rows[audit.other_votes].tolist() == [31]
    assert "|      31 | the seed gives other votes or reaches |" in audit.table()


def test_forged_selection_and_reach_are_found(store):
    def change(rows):
        rows[3]["selection"] = json.dumps({"1" if Y[3] == 0 else "0": rows[3]["n_selection"]})
        rows[4]["reach"] = (np.frombuffer(rows[4]["reach"], "<f8") * 0.5).tobytes()

    forge(store, change)
    audit = verify_store(store, smoothed(), X)
    assert audit.rows[audit.other_votes].tolist() == [3, 4]


@pytest.mark.parametrize("width", [0, 1, 4, 6])
def test_another_number_of_reaches_is_found(store, width):
    def change(rows):
        for row in rows:
            row["reach"] = (row["reach"] * 2)[: 8 * width]

    forge(store, change)
    assert verify_store(store, smoothed(), X, fraction=0.1).other_votes.all()
    if not width:
        with pytest.raises(ValueError, match=r"features of each input, which are not known here\. Give X="):
            Certificates.from_store(store)


def test_fresh_votes_find_counts_of_a_chosen_seed(tmp_path):
    """Here the author has another model, and a seed of it that nobody can know: replay alone would say so as well."""
    path = tmp_path / "run.sqlite"
    smoothed(random_state=SEED).certify(X, store=path)

    def change(rows):
        for row in (rows[8], rows[20]):
            forge_counts(row, {str(Y[row["input"]]): 400})

    margins = Certificates.from_store(path).p_a[[8, 20]]
    assert (margins < 0.9).all()
    forge(path, change)
    audit = verify_store(path, smoothed(), X, fresh=True, random_state=1)
    assert audit.rows[audit.contradicted].tolist() == [8, 20]
    assert (audit.p_values[audit.contradicted] < 1e-6).all()
    assert "fresh votes differ, p-value" in audit.table()


def test_false_alarms_are_rare(store):
    """The p-values of an honest record are at least uniform, over many fresh draws."""
    clf = smoothed()
    found = np.concatenate([verify_store(store, clf, X, fresh=True, random_state=i).p_values for i in range(5)])
    for level in (0.01, 0.05, 0.2):
        assert (found <= level).mean() <= level + 4 * np.sqrt(level / len(found))
    assert (found < 0.5).any()


def test_the_level_is_shared_by_all_tests():
    """Bonferroni's correction: for the inputs in the verdict; for classes and checkpoints in each p-value."""
    no, p_values = np.zeros(20, dtype=bool), np.append(np.ones(19), 0.0008)
    given = {"recorded": np.arange(20), "other_input": no, "rows": np.arange(20), "other_votes": no, "same_model": True}
    assert StoreAudit(**given, p_values=p_values, level=0.01).consistent
    for bad in (
        StoreAudit(**given, p_values=p_values / 2, level=0.01),
        StoreAudit(**given, p_values=p_values, level=0.02),
    ):
        assert bad.contradicted.tolist() == [False] * 19 + [True]
        assert not bad.consistent
    recorded = np.array([[60, 30, 10]])
    clf = SmoothedClassifier.from_pretrained(BASE, [0, 1, 2], n_samples=100, alpha=0.1, rtol=0.1)
    algorithm, inputs = clf.algorithm((5,)), clf.open_inputs(X[:1])
    sampler, rule = algorithm.sampler(3), algorithm.precision_rule()
    fresh = sampler.draw(X[:1]).estimation[0]
    # Fisher's exact test of each class that has votes.
    tails = [
        2 * min(hypergeom.cdf(k, 200, k + other, 100), hypergeom.sf(k - 1, 200, k + other, 100))
        for k, other in zip(recorded[0], fresh, strict=True)
    ]
    for looks, one in ((1, None), (len(rule.checkpoints), rule)):
        np.testing.assert_allclose(_p_values(recorded, sampler, inputs, None, one), 3 * looks * min(tails), rtol=1e-9)
    two = np.array([[60, 40]])
    sampler = smoothed(n_samples=100, alpha=0.1).algorithm((5,)).sampler(3)
    other = sampler.draw(X[:1]).estimation[0, 0]
    tail = 2 * min(hypergeom.cdf(60, 200, 60 + other, 100), hypergeom.sf(59, 200, 60 + other, 100))
    np.testing.assert_allclose(_p_values(two, sampler, inputs, None, None), min(tail, 1), rtol=1e-9)


def test_swapped_rows_are_found(store):
    def change(rows):
        rows[10], rows[11] = rows[11] | {"input": 10}, rows[10] | {"input": 11}

    forge(store, change)
    audit = verify_store(store, smoothed(), X)
    assert audit.recorded[audit.other_input].tolist() == [10, 11]
    assert not audit.consistent
    assert audit.table().count("X holds another input there") == 2


def test_another_model_is_found(store):
    audit = verify_store(store, smoothed(LogisticRegression(C=29).fit(X, Y)), X)
    assert not audit.same_model
    assert not audit.consistent
    assert "ANOTHER model" in repr(audit)


@pytest.mark.parametrize("costs", [1.0, [1, 1, 1, 1, "fixed"]])
def test_the_classifier_of_a_run_is_another_object(tmp_path, costs):
    own = smoothed(costs=costs, random_state=SEED)
    own.certify(X[:4], store=tmp_path / "run.sqlite")
    own.set_params(n_samples=100, alpha=0.05)
    before = own.get_params(deep=False)
    found = stored_classifier(tmp_path / "run.sqlite", own, n_jobs=2)
    assert (found.n_samples, found.alpha, found.n_jobs, found.random_state) == (400, 0.01, 2, SEED)
    assert own.get_params(deep=False) == before


def test_other_parameters_are_refused(store):
    with pytest.raises(StoreError, match=r"alpha: 0.01, 0.05"):
        verify_store(store, smoothed(alpha=0.05), X)
    with pytest.raises(StoreError, match=r"shape of X: \(60, 5\), \(59, 5\)"):
        verify_store(store, smoothed(), X[1:])
    with pytest.raises(ValueError, match="fraction must"):
        verify_store(store, smoothed(), X, fraction=0)


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("noise", '"lam": 1.0', '"lam": 40.0'),
        ("noise", '"class": "SplitNoise"', '"class": "UniformNoise"'),
        ("parameters", '"max_features": null', '"max_features": 1'),
    ],
)
def test_what_certificates_are_built_from_is_compared_and_not_its_text(store, column, old, new):
    def change(rows):
        assert rows[0][column].count(old) == 1
        rows[0][column] = rows[0][column].replace(old, new)

    forge(store, change, table="run")
    name = {"noise": "noise", "parameters": "radius"}[column]
    with pytest.raises(StoreError, match=rf"Different are \(stored, now\): parameters of {name}: [^;]*\.$"):
        verify_store(store, smoothed(), X)
    with pytest.raises(StoreError, match=f"belongs to another run.*parameters of {name}"):
        smoothed().certify(X, store=store)


def test_the_names_of_columns_in_a_threat_are_compared(tmp_path):
    table = pd.DataFrame(X[:6], columns=list("abcde"))
    base = LogisticRegression().fit(pd.DataFrame(X, columns=list("abcde")), Y)
    clf = smoothed(base, costs={"a": "fixed"}, random_state=SEED)
    path = tmp_path / "run.sqlite"
    clf.certify(table, store=path)
    assert verify_store(path, clf, table).consistent
    forge(path, lambda rows: rows[0].update(box=rows[0]["box"].replace('"a", "b"', '"b", "a"')), table="run")
    assert "leave column 'b' as it is" in Certificates.from_store(path).threat
    with pytest.raises(StoreError, match=r"columns: \('b', 'a', 'c', 'd', 'e'\), \('a', 'b'"):
        verify_store(path, clf, table)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("estimation", '{"0": 399}'),
        ("estimation", '{"0": 500, "1": -100}'),
        ("estimation", '{"0": 399, "2": 1}'),
        ("estimation", '{"0": 399, "-1": 1}'),
        ("estimation", '{"0": 400.0}'),
        ("estimation", '{"0": true}'),
        ("estimation", '{"0": 400'),
        ("estimation", '{"0": 200}, {"0": 200}'),
        ("estimation", "400"),
        ("selection", '{"0": 1}'),
        ("selection", "{}"),
        ("hash", b"short"),
        ("reach", b"\0" * 7),
    ],
)
def test_impossible_records_are_damage(store, column, value):
    forge(store, lambda rows: rows[5].update({column: value}))
    for use in (
        Certificates.from_store,
        lambda path: verify_store(path, smoothed(), X),
        lambda path: smoothed().certify(X, store=path),
    ):
        with pytest.raises(StoreError, match="is damaged"):
            use(store)


def test_records_of_inputs_that_are_not_of_the_run_are_damage(store):
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE results SET input = 60 WHERE input = 5")
        sign(connection)
    with pytest.raises(StoreError, match="inputs that are not of this run"):
        Certificates.from_store(store)


def test_an_input_that_is_finished_and_failed_is_damage(store):
    """It would take the place of one that is missing, and move the results of all inputs between the two."""
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("DELETE FROM results WHERE input = 37")
        connection.execute("INSERT INTO failures VALUES (5, 'lost', x'')")
        sign(connection)
    for read in (
        Certificates.from_store,
        lambda path: list(read_parts(path, 1000)),
        lambda path: smoothed().certify(X, store=path, on_error="skip"),
    ):
        with pytest.raises(StoreError, match=r"X\[5\] is finished and failed"):
            read(store)


def test_a_broken_record_of_the_run_is_damage(store):
    forge(store, lambda rows: rows[0].update(parameters="{"), table="run")
    with pytest.raises(StoreError, match="is damaged"):
        Certificates.from_store(store)


def test_parameters_that_are_not_those_of_the_text_are_refused(store):
    """Status and reports show the text, and certificates follow from the parameters."""
    forge(store, lambda rows: rows[0].update(noise=rows[0]["noise"].replace('"lam": 1.0', '"lam": 50.0')), table="run")
    with pytest.raises(
        ValueError, match=r"noise is SplitNoise\(lam=1.0, .*its parameters are those of SplitNoise\(lam=50"
    ):
        Certificates.from_store(store)


def test_the_digest_is_that_of_all_records(store):
    before = read_status(store).digest
    assert before == read_status(store).digest
    forge(store, lambda rows: rows[5].update(seconds=1.0))
    assert read_status(store).digest != before


def test_the_seed_of_a_store_can_be_given_back(store, tmp_path):
    seed = read_status(store).run.seed
    assert seed > 2**64
    again = smoothed(random_state=seed).certify(X)
    np.testing.assert_array_equal(again.radii, Certificates.from_store(store).radii)
