"""The page from made-up records: what it says, where its links lead, and how it behaves in a headless Chromium."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
import pytest

from hiplora.evaluation.retention import retention
from hiplora.report import contrasts
from hiplora.report.__main__ import main
from hiplora.report.page import build, summary
from hiplora.report.page.drawing import Mark, pareto, scatter
from hiplora.report.page.exhibits import Exhibit, Section, Shown, exhibit
from hiplora.report.page.groups import grouped
from hiplora.report.runs.shelf import FIRST, Shelf
from hiplora.report.table import Table
from tests.report.browser import CHROMIUM, Browser, browser
from tests.report.evidence import fixture_evidence
from tests.report.pages import Read
from tests.report.simulated import Simulation

ONLY = "table1,table16,figure7,figure8"
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set HIPLORA_CHROMIUM to another one's path"
)


@pytest.fixture(scope="module")
def made(elsewhere: Path) -> Simulation:
    """Adapters of two methods, their merges, and frontiers at equal learning: enough for a verdict."""
    simulation = Simulation(elsewhere)
    simulation.levels()
    simulation.experiment("table1", method=["lora", "hip"], task=["gsm8k", "code"])
    simulation.experiment("table16", method=["lora", "hip"], seed=["42", "100", "2024"])
    return simulation


@pytest.fixture(scope="module")
def page(made: Simulation) -> Path:
    assert main(["--out", "page.html", "--only", ONLY]) == 0
    return Path("page.html").resolve()


def test_every_link_resolves_and_nothing_is_fetched(page):
    read = Read(page.read_text())
    assert max(read.ids.values()) == 1
    assert {link for link in read.links if not link.startswith(("#", "data:"))} == set()
    assert {link[1:] for link in read.links if link.startswith("#")} <= read.ids.keys()
    assert all(source.startswith("data:") for source in read.sources)


def test_every_record_has_its_place_and_a_number_leads_to_those_behind_it(page, made):
    read = Read(page.read_text())
    anchors = {f"r-{record.id}-{record.where}" for record in made.made.values()}
    assert anchors <= read.ids.keys()
    table = next(row for row in read.rows if row[0][0] == "LoRA" and len(row) > 8)
    assert table[3][1] is not None
    assert table[3][1].startswith("#table1-runs-")  # code: three seeds
    behind = page.read_text().split(f'id="{table[3][1][1:]}"')[1].split("</ul>")[0]
    scores = {r.id for r in made.made.values() if r.kind == "score" and r.name.startswith("lora-code-s")}
    assert {link.split("-")[1] for link in Read(behind).links} == {i for i in scores if i in behind}
    assert len(Read(behind).links) == 3
    assert table[1][0] == "–"  # no adapter of this task is there


def test_the_list_holds_what_each_adapter_learned_and_forgot(page, made):
    read = Read(page.read_text())
    (base,) = (
        r
        for r in made.made.values()
        if r.kind == "score" and r.name.startswith("backbone") and len(r.result.benchmarks) == 6
    )
    (adapted,) = (r for r in made.made.values() if r.kind == "score" and r.name == "hip-code-s42")
    (train,) = adapted.needs
    row = next(row for row in read.rows if row[0][1] == f"#r-{train}-{adapted.where}" and len(row) == 14)
    before, after = base.result.benchmarks, adapted.result.benchmarks
    lost = retention(before, after, trained_on="code")
    expected = {
        5: f"{100 * after['code']['pass@1']:.1f}", 6: f"{before['code']['nll'] - after['code']['nll']:.3f}",
        7: f"{lost['retain_text']:.3f}", 8: f"{lost['retain_pp']:.2f}", 9: f"{lost['retain_nll']:.3f}",
    }  # fmt: skip
    assert {place: row[place][0].strip().replace("−", "-") for place in expected} == expected


def test_the_answer_is_the_verdict_of_table_16(page):
    summarised, table = (
        Read(page.read_text().split(f'<section id="{name}">')[1].split("</section>")[0])
        for name in ("answer", "table16")
    )
    said = [_verdict(each.rows) for each in (summarised, table)]
    assert said[0] == said[1]
    leads = {"supported": "Yes, at this scale.", "not supported": "No, not at this scale."}
    lead = leads.get(said[1], "The runs do not decide it." if said[1].startswith("undecidable") else "no such verdict")
    assert f'<p class="lead">{lead}</p>' in page.read_text()


def _verdict(rows: list[list[tuple[str, str | None]]]) -> str:
    """The verdict of the first contrast of a table."""
    place, row = next((n, row) for n, row in enumerate(rows) if row and row[0][0] == "Text rise: HiP-LoRA − LoRA")
    heads = next(each for each in rows[:place][::-1] if each[0][0] == "row")
    return row[[text.strip() for text, _ in heads].index(contrasts.VERDICT.label)][0].strip()


@pytest.mark.parametrize(
    ("verdict", "lead"),
    [
        ("supported", "Yes, at this scale."),
        ("supported, equal learning not shown", "Forgets less, but equal learning is not shown."),
        ("undecidable: second text disagrees", "The runs do not decide it."),
    ],
)
def test_the_lead_says_no_more_than_the_verdict(verdict, lead):
    head = [Shown(contrasts.DIFFERENCE.label), Shown(contrasts.VERDICT.label)]
    section = Section(summary.FIRST, head, [("HiP-LoRA − LoRA", [Shown("−0.2", "#run"), Shown(verdict, "#run")])])
    made = Table(name=summary.ANSWERS, title="", caption="", columns=(), cells=())
    exhibit = Exhibit(summary.ANSWERS, "", there=1, wanted=1, made=made, sections=[section])
    assert summary.summary([exhibit], [], []).lead == lead


def test_a_run_shows_an_item_that_it_learned_with_prompt_and_answers(page, made):
    text = page.read_text()
    run = next(run for run in grouped(Shelf(made.folder)) if run.head.name == "lora-gsm8k-s42")
    article = text.split(f'id="r-{run.head.id}-{run.head.where}"')[1].split("</article>")[0]
    words = Read(article).words
    assert "learned" in words
    assert any(item["question"] in words for item in made._items["gsm8k"][1])
    assert "polyline" in article  # its curve
    assert "The same as in conf/." in words


def test_a_run_of_edits_shows_a_fact_before_and_after(tmp_path, monkeypatch, elsewhere):
    monkeypatch.chdir(tmp_path)
    simulation = Simulation(tmp_path / "results/mini")
    simulation.experiment("table8", method=["lora"], seed=["42"])
    fact = next(each for each in simulation.config.edits.items() if each.id == "entity-0001")
    assert main(["--only", "table8"]) == 0
    text = Path("outputs/report.html").read_text()
    prompt = f"<dt>prompt</dt><dd>{escape(fact.prompt)}</dd><dt>right</dt><dd>{escape(fact.new)}</dd><dt>before</dt>"
    assert f'>learned</span> <span class="soft">edits {fact.id}' in text
    assert f"{prompt}<dd> the old</dd><dt>after</dt><dd> the new</dd>" in text
    assert f"{prompt}<dd> the old</dd></dl>" in text, "the backbone itself has no after"


def test_the_words_of_ones_own_task_change_nothing_but_the_text_of_its_items(page, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text('{"prompt": "q", "answer": "a"}\n' * 20)
    assert main(["--out", "own.html", "--only", ONLY, "task=custom", f"task.file={own}"]) == 0
    before, after = page.read_text(), Path("own.html").read_text()
    assert (
        after.split("How to read it</h2>")[0].replace(f" task=custom task.file={own}", "")
        == before.split("How to read it</h2>")[0]
    )


def test_the_points_of_a_figure_have_the_intervals_of_x_where_x_is_measured(tmp_path, monkeypatch, elsewhere):
    (tmp_path / "results/mini").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    made = {name: exhibit(name, fixture_evidence(name), lambda id, where: None) for name in ("figure3", "figure7")}
    monkeypatch.setattr(build, "exhibits", lambda *_: made.values())
    assert main(["--only", ",".join(made)]) == 0
    text = (tmp_path / "outputs/report.html").read_text()
    for name, each in made.items():
        heads, *rows = Read(text.split(f'<section id="{name}">')[1].split("</section>")[0]).rows
        assert [("95 % interval of x", None) in heads, len(rows)] == [name == "figure3", len(each.points)]
        for row, (dot, _) in zip(rows, each.points, strict=True):
            found = [cell.replace("−", "-") for cell, _ in row[2:]]
            assert found[-3] == f"{dot.y:z.3f}"
            if name == "figure3":
                assert found[1] == f"[{dot.x_low:z.3f}, {dot.x_high:z.3f}]"


@pytest.mark.parametrize(("value", "text"), [(-0.0004, "0.000"), (-0.0006, "−0.001"), (0.0, "0.000"), (None, "")])
def test_a_rounded_zero_has_no_sign(value, text):
    assert build._number(value, 3) == text


def test_a_page_without_records_says_what_to_type(tmp_path, monkeypatch, elsewhere):
    (tmp_path / "results/mini").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["--only", "table1,figure7"]) == 0
    read = Read((tmp_path / "outputs/report.html").read_text())
    assert FIRST in read.words
    assert "make plan-table1" in read.words
    assert {link[1:] for link in read.links if link.startswith("#")} <= read.ids.keys()


def test_refusals(elsewhere, capsys):
    assert main(["--only", "table99"]) == 2
    assert "choose among table1" in capsys.readouterr().err
    assert main(["--results", "results/elsewhere"]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_mark_far_from_the_others_is_at_the_edge_of_a_frame_that_shows_these():
    """Without it the others would share a few pixels; the page says that it is outside."""
    points = [(3 + n / 100, 0.1 + n / 100) for n in range(10)]
    marks = [Mark(x, y, None, "#", "") for x, y in [*points, (-4.0, 9.0)]]
    found = scatter("", marks, width=300, height=240)
    *inside, far = found.marks
    assert far.outside
    assert not any(mark.outside for mark in inside)
    assert (far.x, far.y) == (min(mark.x for mark in inside), min(mark.y for mark in inside))
    assert max(mark.x for mark in inside) - far.x > 150
    same = [Mark(1.0, y, None, "#", "") for y in [5.0] * 6 + [0.0, 2.5]]
    assert not any(mark.outside for mark in scatter("", same, width=300, height=240).marks)
    high = [Mark(1.0, y, None, "#", "") for y in [5 + n / 100 for n in range(10)] + [2.5]]
    assert not any(mark.outside for mark in scatter("", high, width=300, height=240).marks), "inside a frame from 0"
    few = scatter("", [*marks[:2], marks[-1]], width=300, height=240)
    assert not any(mark.outside for mark in few.marks)


def test_the_front_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = [(float(x), float(y)) for x, y in rng.integers(0, 12, size=(30, 2))]
        beaten = {b for a, b in itertools.permutations(set(points), 2) if a[0] >= b[0] and a[1] <= b[1]}
        assert pareto(points) == sorted(set(points) - beaten)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_screen_and_nothing_is_complained_of(page, chromium, width, dark):
    chromium.open(page, width=width, height=844, dark=dark)
    runs = chromium.run("document.querySelectorAll('.run').length")
    for target in ["", *(f"#{name}" for name in ("table1", "table16", "figure7", "runs"))]:
        chromium.run(f"location.hash = '{target}'")
        assert chromium.run("document.documentElement.scrollWidth <= innerWidth"), target
    for number in (0, runs - 1):
        chromium.run(f"location.hash = document.querySelectorAll('.run')[{number}].id")
        assert chromium.run("document.documentElement.scrollWidth <= innerWidth")
    first = chromium.run("document.querySelector('.list tbody th').offsetWidth")
    assert first >= 140, "a name is broken into lines of a few characters"
    ground = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark
    assert chromium.errors == []
    assert {url.partition(":")[0] for url in chromium.requested} <= {"file", "data"}


@needs_chromium
def test_the_list_filters_and_sorts(page, chromium, made):
    chromium.open(page)
    shown = "[...document.querySelectorAll('.list tbody tr')].filter((row) => !row.hidden)"

    def filtered(words: str) -> int:
        chromium.run(f"filter.value = {words!r}; filter.dispatchEvent(new Event('input'))")
        return chromium.run(f"{shown}.length")

    every = filtered("")
    trains = [r for r in made.made.values() if r.kind == "train"]
    assert filtered("kind=adapter") == len(trains)
    assert filtered("kind=adapter method=hip task=code") == sum(r.name.startswith("hip-code-") for r in trains)
    assert filtered("learned > 0") == filtered("learned>0")
    exact = chromium.run("document.querySelector('td[data-sort]:not([data-sort=\"\"])').dataset.sort")
    assert filtered(f"own>={exact}") == filtered(f"own>{exact}") + filtered(f"own={exact}") > filtered(f"own>{exact}")
    assert filtered("learned>0") + filtered("learned<0") == filtered("kind=adapter")
    day = chromium.run("document.querySelector('.list tbody tr').cells[12].textContent.trim()")
    assert filtered(f"made={day}") == filtered("") == every
    assert filtered(f"made>{day}") == filtered(f"made<{day}") == 0
    assert filtered(f"made>{day[:4]}") == filtered("made<9999-01-01") == every
    assert filtered("no such word") == 0
    said = "document.querySelector('output').textContent"
    assert chromium.run(said) == f"0 of {every} runs"
    assert filtered("learned<much") == 0
    assert chromium.run(said) == f"0 of {every} runs; learned< needs a number"
    assert filtered("lr>0") == 0
    assert chromium.run(said).startswith(f"0 of {every} runs; no column lr, choose among run, kind, ")
    filtered("kind=adapter")
    head = "document.querySelector('th[data-name=learned]')"
    column = f"{shown}.map((row) => row.cells[6].dataset.sort).filter(Boolean).map(Number)"
    for expected in ("ascending", "descending"):
        done = "document.querySelector('.list').addEventListener('sort-end', done, {once: true})"
        chromium.run(f"new Promise((done) => {{ {done}; {head}.querySelector('button').click() }})")
        assert chromium.run(f"{head}.getAttribute('aria-sort')") == expected
        values = chromium.run(column)
        assert values == sorted(values, reverse=expected == "descending")
        last = "[...document.querySelector('.list').tBodies[0].rows].at(-1).cells[6].dataset.sort"
        assert not chromium.run(last), "runs without this number come last in either direction"


@needs_chromium
def test_a_number_leads_to_one_run_by_keyboard(page, chromium):
    chromium.open(page)
    visible = "[...document.querySelectorAll('.run')].filter((run) => run.offsetHeight > 0).map((run) => run.id)"
    assert chromium.run(visible) == []
    chromium.press("Tab")
    assert chromium.run("document.activeElement.className") == "skip"
    chromium.run("document.querySelector('.list tbody a').focus()")
    chromium.press("Enter")
    assert chromium.run(visible) == [chromium.run("document.querySelector('.list tbody a').hash.slice(1)")]
    chromium.run("document.querySelector('#table1 td a').focus()")
    chromium.press("Enter")
    assert chromium.run("document.querySelector(':target').offsetHeight > 0"), "the list of runs is still closed"


@needs_chromium
def test_it_is_read_without_scripts(page, chromium):
    chromium.open(page, scripts=False)
    chromium.call(
        "Emulation.setScriptExecutionDisabled", value=False
    )  # for these questions; the page's own did not run
    assert chromium.run("document.querySelector('.controls').hidden")
    assert chromium.run("document.querySelectorAll('.list tbody tr').length > 8")
    assert chromium.run("document.querySelector('th[data-name=learned] button')") is None
    chromium.run("location.hash = document.querySelector('.list tbody a').hash")
    assert chromium.run("document.querySelector('.run:target').offsetHeight > 0")


@needs_chromium
@pytest.mark.slow
def test_five_hundred_runs_stay_small_and_open_quickly(tmp_path, monkeypatch, chromium, elsewhere):
    (tmp_path / "results/mini").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    Simulation(Path("results/mini")).seeds(500)
    assert main(["--only", "table1"]) == 0
    written = (tmp_path / "outputs/report.html").resolve()
    assert written.stat().st_size < 15e6
    chromium.open(written)
    assert chromium.work() < 2
    assert chromium.run("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 2000
    assert chromium.run("document.querySelectorAll('.list tbody tr').length") == 501
