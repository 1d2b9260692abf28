"""The documentation against the code: tables, code blocks, links from theorems, and docstrings of public names."""

import contextlib
import importlib
import inspect
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc

import smoothcert
from smoothcert import BoxRadius, GreedyRadius, LipschitzRadius
from smoothcert.certify.names import STRATEGIES, resolve

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path[:0] = [str(DOCS), str(DOCS / "_ext")]

from check_site import UNREAD, problems  # noqa: E402
from markdown_code import python_blocks  # noqa: E402

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


# Tables


def rows_of_table(path, header):
    """Rows of the Markdown table whose header starts with these words, as lists of cells."""
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table[0], table[2:]


def test_the_table_of_certificates_is_what_the_code_accepts():
    header, rows = rows_of_table(DOCS / "noises.md", "| noise | `Lipschitz")
    names = {"BoxRadius": BoxRadius, "GreedyRadius": GreedyRadius, "LipschitzRadius": LipschitzRadius, "inf": np.inf}
    strategies = [eval(cell.strip("`"), names) for cell in header[1:]]
    assert {row[0].strip("`") for row in rows} == set(STRATEGIES["noise"][1])
    for row in rows:
        noise = resolve("noise", row[0].strip("`"))
        for cell, strategy in zip(row[1:], strategies, strict=True):
            if cell == "-":
                with pytest.raises(ValueError, match="has no certificate for"):
                    strategy.check(noise)
            else:
                strategy.check(noise)


def test_the_table_of_parameters_is_that_of_the_code():
    _, rows = rows_of_table(DOCS / "noises.md", "| noise | parameters")
    assert len(rows) == len(STRATEGIES["noise"][1])
    for name, parameters, _, box, _, calls in rows:
        noise = resolve("noise", name.strip("`"))
        assert set(parameters.split(", ")) == set(noise.get_params())
        assert (box == "used") == noise.uses_box
        assert (calls == "all floor(2 lam levels)") == (noise.n_outcomes is not None)


# Code blocks


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.runs for block in python_blocks(page))], ids=lambda page: page.name
)
def test_python_blocks_run_in_order_and_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for block in python_blocks(page):
        if not block.runs:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # Leading newlines make line numbers in tracebacks those of the page.
            exec(compile("\n" * (block.line - 1) + block.source, str(page), "exec"), namespace)
        assert block.prints is None or block.agrees(printed.getvalue()), printed.getvalue()
    if page.name in RESULTS:
        RESULTS[page.name](**namespace)


def results_of_units(labels, certificates, plain, weighted, weights, **_):
    assert (labels == [0, 1, 0, 1]).all()
    kept = ~certificates.abstained
    assert kept.any()
    # The dose has the smaller range, .8, and decides about the plain radius.
    np.testing.assert_allclose(plain.radii[kept], 0.8 * certificates.radii[kept], rtol=1e-6)
    np.testing.assert_allclose(weighted.radii[kept], certificates.radii[kept], rtol=1e-6)
    np.testing.assert_allclose(weights, [1 / 45, 1 / 0.8], rtol=1e-12)


def results_of_ecosystem(function, accuracy, loaded, **_):
    assert list(function.predict([[0.1, 0.3], [0.9, 0.3]])) == ["low", "high"]
    assert (np.diff(accuracy) < 0).any()
    np.testing.assert_array_equal(loaded.classes_, [0, 1])


#: Pages whose results are checked, whether the page prints them or not.
RESULTS = {"units.md": results_of_units, "ecosystem.md": results_of_ecosystem}


def test_blocks_are_found_with_what_they_print(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1)\n```\n<!-- prints -->\n```text\n1\n```\n```text\nno output\n```\n"
        "<!-- not run: needs data -->\n```python\nmissing\n```\n```console\n$ ls\n```\n"
    )
    first, second = python_blocks(page)
    assert (first.source, first.line, first.prints, first.runs) == ("print(1)\n", 2, "1\n", True)
    assert (second.source, second.prints, second.runs) == ("missing\n", None, False)


def test_outputs_agree_up_to_the_tolerance_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    for comment, tolerance in ("prints", 0.0), ("prints, within 0.1", 0.1):
        page.write_text(f"```python\nx\n```\n<!-- {comment} -->\n```text\na  0.50 of 1,000\n```\n")
        (block,) = python_blocks(page)
        assert block.tolerance == tolerance
        assert block.agrees("a  0.50 of 1,000  \n")
        assert block.agrees("a 0.45 of 1,000") == (tolerance > 0)
        assert not block.agrees("a 0.35 of 1,000")
        assert not block.agrees("b 0.50 of 1,000")
        assert not block.agrees("a 0.50 of 1,001")
        assert not block.agrees("a 0.50 of")


# Theorems


def import_name(name):
    """Import ``package.module.Class.method``, by the longest part of it that is a module."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def test_code_that_pages_refer_to_exists():
    roles = {
        name: page.name
        for page in PAGES
        for name in re.findall(r"\{(?:class|func|meth|mod|attr|data)\}`~?([\w.]+)`", page.read_text())
    }
    assert len(roles) > 30
    for name in roles:
        import_name(name)


def test_the_theory_page_names_every_statement_of_the_paper_that_the_code_names():
    number = r"(?:[A-Z]|\d)\.\d+"
    statement = rf"(?:Propositions?|Theorems?|Corollar(?:y|ies)) ({number})(?: and ({number}))?"
    sources = "".join(path.read_text() for path in (ROOT / "smoothcert").rglob("*.py"))
    in_code = {found for pair in re.findall(statement, sources) for found in pair if found}
    assert {"2.1", "2.8", "2.11", "2.13", "A.4"} <= in_code
    assert in_code <= set(re.findall(number, (DOCS / "theory.md").read_text()))


# Docstrings


#: Modules for users, beside the package itself.
PUBLIC_MODULES = ("attacks", "pipeline", "results", "results.display", "runs.store", "training", "weights")


def public_names(module):
    """Return what a module offers: its ``__all__``, or what it defines under names without an underscore."""
    defined = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [name for name in defined if not name.startswith("_")])


def public_objects():
    """Return public names and what they stand for, once each."""
    modules = [smoothcert, *(importlib.import_module(f"smoothcert.{name}") for name in PUBLIC_MODULES)]
    found = {}
    for module in modules:
        for name in public_names(module):
            found.setdefault(id(getattr(module, name)), (f"{module.__name__}.{name}", getattr(module, name)))
    return dict(found.values())


PUBLIC = public_objects()


def public_methods(cls):
    """Methods that a class of ours defines for its users."""
    for name, member in vars(cls).items():
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if not name.startswith("_") and inspect.isfunction(plain):
            yield name, plain


def parameters(function):
    """Names of a function's parameters as numpydoc writes them, but for self and cls."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    signature = inspect.signature(function)
    return {f"{stars.get(p.kind, '')}{name}" for name, p in signature.parameters.items() if name not in ("self", "cls")}


def documented(doc, *sections):
    return {name.strip() for section in sections for entry in doc[section] for name in entry.name.split(",")}


#: The defaults that a description such as "As in `SmoothedClassifier`" means.
KNOWN = [smoothcert.SmoothedClassifier, smoothcert.SmoothedClassifier.certify, smoothcert.Certificates]
KNOWN = {name: p.default for known in KNOWN for name, p in inspect.signature(known).parameters.items()}


def check_defaults(function, doc):
    """Check that each default is the documented one, or that of the parameter elsewhere that the text refers to."""
    defaults = {
        name: p.default for name, p in inspect.signature(function).parameters.items() if p.default is not p.empty
    }
    for entry in [*doc["Parameters"], *doc["Other Parameters"]]:
        said = re.search(r"default=(.+)$", entry.type)
        for name in [name.strip() for name in entry.name.split(",")]:
            if name in defaults:
                expected = (
                    [eval(said[1], {"inf": np.inf})] if said else [None, ""] if "optional" in entry.type else None
                )
                expected = [KNOWN[name]] if expected is None else expected
                assert repr(defaults[name]) in map(repr, expected), f"{name} has the default {defaults[name]!r}"
            else:
                assert not said, f"{name} has no default"
                assert "optional" not in entry.type, f"{name} has no default"


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if callable(thing)])
def test_public_names_are_documented(name):
    thing = PUBLIC[name]
    doc = ClassDoc(thing) if inspect.isclass(thing) else FunctionDoc(thing)
    assert doc["Summary"], "needs a summary"
    if inspect.isclass(thing):
        own = [cls for cls in thing.__mro__ if "__init__" in vars(cls)]
        if own and own[0].__module__.startswith("smoothcert"):
            assert parameters(own[0].__init__) <= documented(doc, "Parameters", "Other Parameters")
        if not issubclass(thing, Exception):
            check_defaults(thing, doc)
        for method, function in public_methods(thing):
            assert inspect.getdoc(getattr(thing, method)), f"{method} needs a docstring"
            check_defaults(function, FunctionDoc(function))
    else:
        assert parameters(thing) == documented(doc, "Parameters", "Other Parameters")
        check_defaults(thing, doc)
        returns = inspect.signature(thing).return_annotation
        assert doc["Returns"] or doc["Yields"] or returns in (None, "None"), "needs a section on what it returns"


#: Abstract bases, whose subclasses show how they are used, and records that only the library makes.
NO_EXAMPLE = {"Attack", "LatticeNoise", "Noise", "RadiusStrategy", "Training", "CleanTraining", "VoteCounts"}
NO_EXAMPLE |= {"CosineSchedule", "StoreError"}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example_that_runs(name):
    """``pytest --doctest-modules`` runs them."""
    thing = PUBLIC[name]
    if name.rpartition(".")[2] not in NO_EXAMPLE and (inspect.isclass(thing) or inspect.isfunction(thing)):
        assert re.search(r">>> |See `\w+`", inspect.getdoc(thing) or "")


#: Names that rest on no statement of the literature themselves.
NO_REFERENCES = {"Adversarials", "Attack", "AttackDisplay", "Box", "CleanTraining", "CoordinateAttack", "Curve"}
NO_REFERENCES |= {"Decisions", "NoisyModule", "Pipeline", "StoreError", "TorchInference", "Training"}
NO_REFERENCES |= {"baselines", "load_weights", "make_pipeline", "noisy_statistics", "project_l1_box", "save_weights"}
NO_REFERENCES |= {"ConformityScore", "PredictionSetDisplay", "mean_set_size_score", "set_coverage_score"}
NO_REFERENCES |= {"StoreAudit", "merge_stores", "stored_classifier", "trusted_types"}


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if callable(thing)])
def test_public_names_say_what_to_see_also_and_where_they_come_from(name):
    doc = ClassDoc(PUBLIC[name]) if inspect.isclass(PUBLIC[name]) else FunctionDoc(PUBLIC[name])
    assert doc["See Also"], "needs a section See Also"
    assert bool(doc["References"]) != (name.rpartition(".")[2] in NO_REFERENCES), "needs references"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_in_the_reference(name):
    module, _, short = name.rpartition(".")
    listed, current = set(), ""
    for line in (DOCS / "api.rst").read_text().splitlines():
        if line.startswith(".. currentmodule::"):
            current = line.split()[-1]
        elif re.fullmatch(r"   [\w.]+", line):
            listed.add(f"{current}.{line.strip()}")
    assert f"{module}.{short}" in listed


# Site


@pytest.fixture
def site(tmp_path):
    """A site with a page of which each test breaks something."""
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "style.css").write_text("body { background: url('paper.png') }")
    (tmp_path / "_static" / "paper.png").write_bytes(b"")
    (tmp_path / "other.html").write_text("<html><body><h1 id='top'>Other</h1></body></html>")
    page = tmp_path / "index.html"
    page.write_text(
        "<html><head><link rel='stylesheet' href='_static/style.css?v=1'></head><body>"
        "<a href='other.html#top'>top</a> <a href='other.html'>other</a> "
        "<a href='https://example.org'>a link is fine</a></body></html>"
    )
    return tmp_path


def test_a_good_site_has_no_problems(site):
    assert problems(site) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "found"),
    [
        ("index.html", "other.html#top", "gone.html", "gone.html does not exist"),
        ("index.html", "#top", "#bottom", "other.html has no #bottom"),
        ("index.html", "<body>", "<body><img src='https://example.org/x.png'>", "fetches https://example.org/x.png"),
        ("index.html", "<body>", "<body><script src='//example.org/x.js'></script>", "fetches //example.org/x.js"),
        ("index.html", "<body>", "<body style='background: url(//example.org/x.png)'>", "fetches //example.org/x.png"),
        ("index.html", "<body>", "<body><img srcset='_static/paper.png, gone.png 2x'>", "gone.png does not exist"),
        ("index.html", "<body>", "<body><style>@import 'gone.css';</style>", "gone.css does not exist"),
        ("index.html", "<body>", "<body><object data='gone.svg'></object>", "gone.svg does not exist"),
        ("index.html", "_static/style.css", "_static/gone.css", "_static/gone.css does not exist"),
        ("_static/style.css", "paper.png", "https://example.org/x.woff2", "fetches https://example.org/x.woff2"),
    ],
)
def test_what_is_wrong_with_a_site_is_found(site, file, old, new, found):
    path = site / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    (problem,) = problems(site)
    assert found in problem


def test_pages_that_take_three_clicks_are_found(site):
    for page, link in ("other", "second"), ("second", "third"), ("third", "index"):
        (site / f"{page}.html").write_text(f"<html><body><h1 id='top'></h1><a href='{link}.html#'>on</a></body></html>")
    assert problems(site) == ["third.html: more than 2 clicks from index.html"]


@pytest.mark.parametrize(
    ("page", "n_unread"),
    [
        ('<div class="math notranslate">\n<mjx-container><mjx-mi>x</mjx-mi></mjx-container></div>', 0),
        ('<div class="math notranslate">\n\\[\\frac{1}{2\\]</div>', 1),
        ('<span class="math">\\(2\\left(\\)</span><span class="math">\\(x\\)</span>', 2),
        ('<span class="math"><mjx-merror data-mjx-error="Missing brace"><mjx-mtext>', 1),
        ('<mjx-mtext class="mjx-n" style="color: red;">', 1),
    ],
)
def test_formulas_that_mathjax_cannot_read_are_found(page, n_unread):
    assert len(UNREAD.findall(page)) == n_unread


def test_the_version_to_cite_is_that_of_the_library():
    assert f"version: {smoothcert.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"{{{smoothcert.__version__}}}" in (DOCS / "citing.md").read_text()


def test_pictures_of_the_readme_exist_and_are_small():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    for picture in pictures:
        assert os.path.getsize(ROOT / picture) < 100_000
