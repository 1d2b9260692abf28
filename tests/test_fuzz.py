"""Damaged and invented files: what is read back is what was written, or an error says that it is not."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoothcert import Certificates, SmoothedClassifier, SplitNoise
from smoothcert.cli.main import cli

from .base_models import Rule, steps

SETTINGS = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=list(HealthCheck))


def certified(path=None):
    base = Rule(steps([0.4])).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], SplitNoise(1.0), n_samples=60, random_state=0)
    X = np.linspace(0, 1, 12).reshape(4, 3)
    return clf.certify(X) if path is None else clf.certify(X, store=path)


@st.composite
def damages(draw):
    """Return a way to damage bytes: some are overwritten, cut out, doubled, or cut off."""
    kind = draw(st.sampled_from(["flip", "overwrite", "cut off", "cut out", "double", "replace"]))
    place, size = draw(st.floats(0, 1)), draw(st.integers(1, 64))
    junk = draw(st.binary(min_size=1, max_size=64))

    def damage(content):
        at = min(int(place * len(content)), len(content) - 1)
        match kind:
            case "flip":
                return content[:at] + bytes([content[at] ^ (1 << size % 8)]) + content[at + 1 :]
            case "overwrite":
                return content[:at] + junk + content[at + len(junk) :]
            case "cut off":
                return content[:at]
            case "cut out":
                return content[:at] + content[at + size :]
            case "double":
                return content[:at] + content[at : at + size] + content[at:]
        return junk

    return damage


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the certificates, and files that hold them by the function that reads them."""
    folder = tmp_path_factory.mktemp("files")
    certificates = certified()
    certified(folder / "run")
    certificates.save(folder / "table.npz")
    return certificates, {folder / "run": Certificates.from_store, folder / "table.npz": Certificates.load}


@pytest.mark.parametrize("which", range(2))
@SETTINGS
@given(damage=damages())
def test_a_damaged_file_gives_the_same_certificates_or_an_error_that_names_it(files, which, damage):
    certificates, readers = files
    path, read = list(readers.items())[which]
    broken = path.with_name(f"broken{path.suffix}")
    broken.write_bytes(damage(path.read_bytes()))
    try:
        found = read(broken)
    except (ValueError, OSError) as error:
        assert "broken" in str(error)  # noqa: PT017
        return
    for name in ("labels", "radii", "abstained", "p_a", "p_b"):
        np.testing.assert_array_equal(getattr(found, name), getattr(certificates, name))


WORDS = st.one_of(
    st.sampled_from(["", "-1", "0", "nan", "inf", "1e400", "cat", "correct", "idx", "label", "0.5", "1", "True", "\t"]),
    st.text(max_size=6),
)


@SETTINGS
@given(rows=st.lists(st.lists(WORDS, max_size=7), max_size=5), header=st.booleans())
def test_an_invented_table_is_read_as_what_it_says_or_refused(tmp_path_factory, rows, header):
    path = tmp_path_factory.getbasetemp() / "invented.tsv"
    first = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"] if header else []
    path.write_text("\n".join(first + ["\t".join(row) for row in rows]), encoding="utf-8", errors="replace")
    try:
        found = Certificates.from_tsv(path, alpha=0.001, norm=1).certificates
    except ValueError as error:
        assert "invented" in str(error)  # noqa: PT017
        return
    assert (found.radii[~found.abstained] >= 0).all()
    assert np.isnan(found.radii[found.abstained]).all()


OPTIONS = st.sampled_from(
    ["--lam", "--sigma", "--levels", "--bounds", "--classes", "--alpha", "--n", "--seed", "--rtol", "--noise", "-o"]
)


@SETTINGS
@given(
    command=st.sampled_from(["certify", "report", "predict", "inspect", "no-such"]),
    arguments=st.lists(OPTIONS | WORDS, max_size=8),
)
def test_arguments_that_are_anything_end_in_a_message_and_never_in_a_traceback(command, arguments):
    arguments = [argument for argument in arguments if "\0" not in argument]
    result = CliRunner().invoke(cli, [command, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if result.exit_code:
        assert result.output.strip()
