"""The table of faults: complete, true of the tests that exist, and written down as it is."""

import pytest

from tests.faults import table

ROWS = [row for rows in table.areas().values() for row in rows]


def test_rows_are_numbered_through():
    assert sorted(row.number for row in ROWS) == list(range(1, len(ROWS) + 1))
    assert all(
        row.fault.endswith(".") and row.promise.endswith(".") and "|" not in row.fault + row.promise for row in ROWS
    )


def test_every_promise_is_shown_and_no_mark_names_a_row_that_is_not_there():
    assert table.marks().keys() == {row.number for row in ROWS}


def test_the_document_is_as_generated():
    """A test that was renamed or removed would still be promised."""
    assert table.DOCUMENT.read_text("utf-8") == table.document(), "run: python -m tests.faults"


MARKED = """
import pytest

@pytest.mark.fault(1, 2)
def test_two_rows():
    pass

@pytest.mark.parametrize("x", [
    1, pytest.param(2, marks=pytest.mark.fault(3)), pytest.param(3, marks=[pytest.mark.slow, pytest.mark.fault(3)]),
])
def test_a_case(x):
    pass
"""


def test_marks_of_tests_and_of_their_cases_are_found(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "test_a.py").write_text(MARKED)
    two, case = table.Shown("inner/test_a.py", "test_two_rows"), table.Shown("inner/test_a.py", "test_a_case")
    assert table.marks(tmp_path) == {1: [two], 2: [two], 3: [case]}


@pytest.mark.parametrize("text", [
    "import pytest\n@pytest.mark.fault(1)\ndef helper():\n    pass\n",
    "import pytest\npytestmark = pytest.mark.fault(1)\n",
    "import pytest\n@pytest.mark.fault('1')\ndef test_a():\n    pass\n",
    "import pytest\n@pytest.mark.fault(*range(3))\ndef test_a():\n    pass\n",
])  # fmt: skip
def test_a_mark_that_pytest_or_the_table_would_miss_is_said(tmp_path, text):
    (tmp_path / "test_a.py").write_text(text)
    with pytest.raises(ValueError, match="test_a.py"):
        table.marks(tmp_path)


@pytest.mark.parametrize(
    "test, said",
    [
        ("test_an_avif_of_display_p3_is_converted", "An AVIF of Display P3 is converted"),
        ("test_nan_is_refused", "NaN is refused"),
        ("test_a_link_in_a_zip", "A link in a ZIP"),
    ],
)
def test_a_name_reads_as_a_sentence(test, said):
    assert table.sentence(test) == said
