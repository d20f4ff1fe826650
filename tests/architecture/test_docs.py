"""The reference pages are complete, and no link leads nowhere."""

import re
from pathlib import Path

import pytest

from app.api.content import ContentIn
from shared import errors, json_schemas, knobs, scoring, templating
from shared.domain import content, diffs
from shared.scoring.catalogue import COMMON
from tests.architecture.scorer_rows import option_row, row

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")])


def leaves(kind: type[errors.PromptmillError]) -> list[type[errors.PromptmillError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]


def test_every_error_code_stands_in_the_reference_with_its_status_and_title() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()

    for kind in leaves(errors.PromptmillError):
        assert f"| `{kind.code}` | {kind.status} | {kind.title()} |" in page


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in leaves(errors.PromptmillError)]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("name", [*knobs.STRATEGIES, "evaluation", "split", "early_stopping"])
def test_every_knob_stands_in_the_reference_under_its_heading(name: str) -> None:
    catalogue = {
        **knobs.STRATEGIES,
        "evaluation": knobs.EVALUATION,
        "split": knobs.SPLIT,
        "early_stopping": knobs.EARLY_STOPPING,
    }
    page = (ROOT / "docs/reference/strategies.md").read_text()
    section = page.split(f"## `{name}`")[1].split("\n## ")[0]

    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)

    assert listed == list(catalogue[name])
    for knob_name, knob in catalogue[name].items():
        assert f"| `{knob_name}` |" in section
        assert knob.note in section


def test_every_scorer_stands_in_the_reference_with_its_settings() -> None:
    page = (ROOT / "docs/reference/scorers.md").read_text()

    lines = page.splitlines()
    for name, option in COMMON.items():
        assert option_row(name, option) in lines
    for name, kind in scoring.SCORERS.items():
        section = page.split(f"### `{name}`")[1].split("\n#")[0]
        assert section.strip().split("\n")[0] == row(name)
        listed = [line for line in section.splitlines() if line.startswith("| `")]
        assert listed == [option_row(*item) for item in kind.options.items()]


def test_every_field_filter_and_limit_of_content_stands_in_the_reference() -> None:
    page = " ".join((ROOT / "docs/reference/content.md").read_text().split())
    limits = [
        *(templating.MAX_SOURCE_BYTES, templating.MAX_RENDERED_BYTES, templating.MAX_NODES, templating.MAX_DEPTH),
        *(templating.MAX_ITERATIONS, templating.MAX_FILTERED, templating.MAX_ROUND_DIGITS),
        *(content.MAX_TOOLS, content.MAX_HISTORY, diffs.MAX_ALIGNED_LINES),
        *(json_schemas.MAX_OBJECTS, json_schemas.MAX_DEPTH, json_schemas.MAX_BYTES // 1_000),
    ]

    assert [name for name in ContentIn().fields if f"| `{name}` |" not in page] == []
    assert f"`{' '.join(templating.FILTERS)}`" in page
    assert [limit for limit in limits if f"{limit:,}" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    missing = [target for target in targets if not (page.parent / target).exists()]

    assert missing == []
