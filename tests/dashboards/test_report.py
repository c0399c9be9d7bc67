"""The report is one file that needs nothing else, holds its numbers, and shows a user's text as text."""

import html
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import synthetic
from synthetic import only

from dashboards.assumption_words import assumptions_told, decimal, ends_text, error_ends, share_ends
from dashboards.report import render_report, to_toml, write_report
from dashboards.words import measure_ends, measure_value, share_text, signed
from sweep.records.tables import TRIALS, Tables
from sweep.statistics import Findings, Verdict, judge, judge_study, looks_taken, study_of
from sweep.studies import load_study, shipped_studies, study_from_dict

CHROMIUM = shutil.which("chromium")
HOSTILE = "A \"quoted\" <script>alert(1) & 'ünïcode' Σ"


class Page(HTMLParser):
    """The page's elements and its text, scripts and styles apart."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def judged(tables: Tables) -> list[Verdict]:
    return judge(tables, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)


def report(**changes) -> str:
    tables = synthetic.tables(rng=np.random.default_rng(0), **changes)
    return render_report(tables, only(judged(tables)))


@pytest.fixture(scope="module")
def tables() -> Tables:
    return synthetic.tables(rng=np.random.default_rng(0), num_diverged=1, num_failed=1, num_unfinished=1)


@pytest.fixture(scope="module")
def page(tables) -> Page:
    return Page(render_report(tables, synthetic.found(tables, judged(tables))))


@pytest.fixture(scope="module")
def scaled() -> tuple[Tables, Findings]:
    """Two scales, pairs and repeats, all trained; RegNet X at large has no estimate, for the lottery kept but one."""
    tables = synthetic.scaled(np.random.default_rng(0), trials_per_space=40)
    return tables, synthetic.found(tables, judged(tables))


@pytest.fixture(scope="module")
def scaled_text(scaled) -> str:
    return render_report(*scaled)


@pytest.fixture(scope="module")
def scaled_page(scaled_text) -> Page:
    return Page(scaled_text)


@pytest.mark.parametrize("name", ["page", "scaled_page"])
def test_page_is_well_formed(name, request):
    page = request.getfixturevalue(name)
    assert page.all("html") == [{"lang": "en"}]
    for tag in ("title", "main", "h1", "header", "footer"):
        assert len(page.all(tag)) == 1
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    labelled = [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert set(labelled) <= set(identifiers)
    assert len(page.all("table")) == len(page.all("caption")) == (5 if name == "page" else 15)
    assert all("scope" in attributes for attributes in page.all("th"))


def sections(page: Page) -> list[str | None]:
    return [attributes["aria-labelledby"] for attributes in page.all("section")]


def test_sections_come_in_the_order_of_a_readers_questions(scaled_page):
    assert sections(scaled_page) == [
        "answer", "verdicts", "measures", "distributions", "full-budget", "effects", "assumptions", "curves", "flops",
        "cost", "best", "reproduce",
    ]  # fmt: skip


def test_sections_vanish_that_have_nothing_to_say(page):
    """While trials are still to train, nothing is known of the full budget, nor of what cheap search rests on."""
    assert not {"full-budget", "assumptions"} & set(sections(page))
    assert "measures" in sections(page)
    alone = Page(report(mean_errors_pct={"anynet_c": 20.0}))
    assert not {"measures", "effects", "full-budget", "assumptions"} & set(sections(alone))


def numbers_of(page: Page, section: str) -> str:
    """The text of one section."""
    texts = page.text
    titles = {"measures": "Not only on average", "full-budget": "At the full budget Early",
              "assumptions": "What cheap search rests on"}  # fmt: skip
    start = texts.index(titles[section])
    ends = [texts.index(end) for end in ("How good the networks", "How much each rule", "How the networks learned")]
    return texts[start : min(end for end in ends if end > start)]


def test_other_measures_are_those_of_the_findings(scaled, scaled_page):
    text = numbers_of(scaled_page, "measures")
    for verdict in scaled[1].at_rungs:
        for other in verdict.others:
            assert f"{measure_value(other)} {measure_ends(other)} {other.verdict}" in text


def test_the_full_budget_is_that_of_the_findings(scaled, scaled_page):
    text = numbers_of(scaled_page, "full-budget")
    for estimate in scaled[1].estimates:
        known = (
            f"{estimate.num_known} of {estimate.num_networks} {estimate.num_audited} of {estimate.num_wanted_to_end}"
        )
        if estimate.mean is None:
            bounds = f"{estimate.bounds.low_pct:.1f} to {estimate.bounds.high_pct:.1f}"
            assert f"{known} {bounds} – – – – {estimate.survivors_mean_pct:.1f}" in text
            continue
        shown = (estimate.mean, *(estimate.quantiles[name] for name in ("q10", "q25", "median", "q75")))
        row = " ".join(f"{one.value:.1f} {error_ends(one)}" for one in shown)
        assert f"{known} {row} {estimate.survivors_mean_pct:.1f}" in text
    assert len(scaled[1].at_full_budget) == 5
    for verdict in scaled[1].at_full_budget:
        row = f"{signed(verdict.effect_pct)} {signed(verdict.ci_low_pct)} to {signed(verdict.ci_high_pct)}"
        assert row in text
        assert f"{verdict.num_known_without} of {verdict.n_without}" in text


def test_a_space_without_an_estimate_has_its_bounds_in_words(scaled_page):
    assert (
        "RegNet X at large has no estimate: the lottery kept 1 of the 18 networks that early stopping wanted to end, "
        "and two are the fewest." in scaled_page.text
    )


def test_no_lottery_leaves_bounds_and_no_figure():
    tables = synthetic.kept(synthetic.tables(rng=np.random.default_rng(0)), lottery=False, stopped=True)
    text = render_report(tables, synthetic.found(tables, judged(tables)))
    page = Page(text)
    assert "full-budget" in sections(page)
    assert page.text.count("has no estimate: the lottery kept none of the") == 4
    assert "full-edf" not in text
    assert "rules at the full budget" not in page.text


def test_where_nothing_was_stopped_the_full_budget_is_a_table_alone():
    tables = synthetic.kept(synthetic.tables(rng=np.random.default_rng(0)), lottery=False, stopped=False)
    findings = synthetic.found(tables)
    assert findings.at_rungs[0].rung_epochs == 4
    text = render_report(tables, findings)
    assert "Every network was trained to its full budget." in Page(text).text
    assert "full-edf" not in text
    assert not any(word in Page(text).text for word in ("rules at the full budget", "By lottery", "Survivors alone"))


def test_assumptions_are_those_of_the_findings(scaled, scaled_page):
    text, found = numbers_of(scaled_page, "assumptions"), scaled[1].assumptions
    assert [told.kind for told in assumptions_told(found)] == ["near_best", "budgets", "seeds", "scales", "rules"]
    for told in assumptions_told(found):
        assert f"{told.question} {told.text}" in text
    for one in found.near_best:
        share, draws = one.near.share, one.near.draws
        assert f"{share_text(share.value)} {share_ends(share)} {draws.value} {ends_text(draws, '{:.0f}')}" in text
    for one in found.budgets:
        ranks = one.ranks.spearman
        assert f"4 epochs {decimal(ranks.value)} {ends_text(ranks)}" in text
    for one in found.seeds:
        ranks = one.reliability.of_ranks
        assert f"{one.reliability.seed_sd_pct:.2f} {decimal(ranks.value)} {ends_text(ranks)}" in text
    for one in found.scales:
        freed = one.ranks.corrected
        assert f"{decimal(freed.value)} {ends_text(freed)} 1 best 1 %" in text
        for choice in one.choices:
            by_chance = f"by chance {choice.random_best_regret_pct:.2f}"
            assert f"{choice.best_regret_pct:.2f} {by_chance}" in text
    for one in found.rules:
        change = one.effect.difference
        assert f"{signed(change.value)} {ends_text(change, '{:+.2f}')}" in text
        assert one.effect.decision in text


def test_survivors_are_nowhere_drawn_without_the_word(scaled_text, scaled_page):
    dotted = re.findall(r'"dash":\s*"dot"[^{}]*}[^{}]*', scaled_text)
    assert len(dotted) == 7
    assert all("survivors alone, no sample of their space" in trace for trace in dotted)
    assert "Dotted: the survivors of early stopping alone" in scaled_page.text


def test_page_asks_for_nothing(page):
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name) in (None, "data:,")
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_figures_cannot_be_sent_to_a_server(page):
    drawn = [script for script in page.scripts if "Plotly.newPlot" in script and "plotly.js v" not in script]
    assert len(drawn) == 5
    for script in drawn:
        assert re.search(r'"showSendToCloud":\s*false', script)
        assert re.search(r'"modeBarButtons":\s*\[\["toImage", "zoom2d", "pan2d", "resetScale2d"\]\]', script)


def test_plotly_is_in_the_file_once_and_the_file_is_small(tmp_path):
    text = report(scales=("small", "large"), trials_per_space=400)
    assert text.count("* plotly.js v") == 1
    assert len(text.encode()) < 8_000_000


def test_every_verdict_is_there_with_effect_interval_n_budget_and_machine(tables, page):
    for verdict in judged(tables):
        assert verdict.claim in page.text
        assert f"{signed(verdict.ci_low_pct)} to {signed(verdict.ci_high_pct)}" in page.text
        assert f"n = {verdict.n_without} + {verdict.n_with}" in page.text
    assert page.text.count("2 of 4 epochs") >= 3
    assert "±0.5 points" in page.text
    captions = len(page.all("caption")) + len(page.all("figcaption"))
    assert page.text.count("Machine: Example CPU @ 2.00GHz, 2 CPUs.") >= captions - 1


def test_matching_is_told_and_that_distributions_are_not_matched(tables, page):
    verdicts = judge(tables, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1, match="flops", match_strata=40)
    text = Page(render_report(tables, only(verdicts))).text
    assert "Matched on flops: only networks of like flops are compared" in text
    assert "not matched on flops as in the verdicts" in text
    assert "too few networks of like flops, or no spread among them, to say anything" in text
    assert f"{verdicts[0].num_matched_with} of {verdicts[0].n_with} " in text
    assert "atched on" not in page.text


def test_what_went_wrong_is_said(page):
    assert "The sweep is not finished: 8 of 80 networks are still to train" in page.text
    assert "4 of 80 networks diverged. They count with the error of a guess, 90.0 %" in page.text
    assert "4 of 80 trials failed by an error or a machine" in page.text


def test_a_clean_sweep_has_no_cautions():
    text = Page(report()).text
    assert not any(word in text for word in ("not finished", "networks diverged", "trials failed"))


def test_a_sweep_that_trained_nothing_says_so(page):
    text = Page(report(objective="curves:answer_pct")).text
    assert "80 networks: 20 from each of 4 design spaces, none of them trained: the function curves:answer_pct" in text
    assert not any(word in text for word in ("5,000 images", "validation images alone", "sweep rerun trains it anew"))
    assert "80 networks: 20 from each of 4 design spaces, trained on 5,000 images" in page.text
    assert "validation images alone" in page.text


def test_trials_that_wait_or_were_cancelled_are_told(tables):
    rows = [
        row | {"outcome": {"pending": "paused", "failed": "cancelled"}.get(row["outcome"], row["outcome"])}
        for row in tables.trials.to_pylist()
    ]
    text = Page(render_report(replace(tables, trials=pa.Table.from_pylist(rows, TRIALS)), only([]))).text
    assert "4 of 80 networks are still to train, 4 more wait at a rung for their place" in text
    assert "4 of 80 trials were cancelled by hand" in text
    assert "trials failed" not in text


def test_a_sweep_that_was_extended_counts_all_its_networks(tables):
    extended = replace(tables, metadata=tables.metadata | {"study": synthetic.study(trials_per_space=15)})
    text = Page(render_report(extended, only(judged(extended)))).text
    assert "80 networks from 4 design spaces, trained on" in text
    assert "8 of 80 networks are still to train" in text


def test_scales_are_told_with_what_they_have_of_their_own():
    """Large: the networks of small, wider, for longer and on more images; again: those of small once more."""
    tables = synthetic.tables(rng=np.random.default_rng(0), scales=("small", "large", "again"))
    own = {"of": "small", "width_factor": 2.0, "max_epochs": 16, "grace_epochs": 4, "num_train": 9000}
    tables = synthetic.with_scale(synthetic.with_scale(tables, 1, **own), 2, of="small", trials_per_space=12)
    draws = [{"space": "anynet_c", "scale": "large", "num_draws": 0, "rejected": {}, "scaled_from": "small"}]
    tables = replace(tables, metadata=tables.metadata | {"draws": draws})
    page = Page(render_report(tables, only(judged(tables))))
    assert (
        "240 networks from 4 design spaces at each of 2 scales, trained on 5,000 or 9,000 images of fashion_mnist for "
        "up to 4 or 16 epochs, errors on 2,500 other images." in page.text
    )
    assert "what one seed does: 12 of scale small (again); no rule is judged by them" in page.text
    assert re.search(
        r"28 px, \d.* flops, up to 16 epochs, 9,000 images, the networks of small, widths × 2, depths × 1", page.text
    )
    assert page.text.count("2 of 4 epochs") >= 3
    assert page.text.count("2 of 16 epochs") >= 3
    assert "completed all 16 epochs" in page.text
    assert "AnyNet C at large scaled from small" in page.text
    assert "Error distributions at scale large" in {tag.get("aria-label") for tag in page.all("figure")}
    assert "Error distributions at scale again" not in {tag.get("aria-label") for tag in page.all("figure")}
    assert "again" in page.text[page.text.index("What it cost") :]


def test_survivors_are_called_so(page):
    assert "survivors of early stopping" in page.text
    assert "all networks, none of them chosen by early stopping" in page.text


def test_text_of_users_is_shown_as_text():
    page = Page(report(name=HOSTILE, question="Is <b>a</b> & 'b' </script> better?", num_failed=1))
    assert HOSTILE in page.text
    assert "Is <b>a</b> & 'b' </script> better?" in page.text
    assert not any("alert(1)" in script for script in page.scripts)
    assert not page.all("b")


def test_what_a_study_tells_stands_under_its_question():
    page = Page(report(question="Better?", method="By <i>hand</i>.", expected="No.", finding="Yes, by 2 points."))
    assert "Better? Method By <i>hand</i>. Expected No. Found before Yes, by 2 points." in page.text


def test_study_in_the_report_gives_the_same_study():
    tables = synthetic.tables(rng=np.random.default_rng(0), name=HOSTILE, question='"""\\ \t\x7f\n„ü“')
    text = render_report(tables, only(judged(tables)))
    toml = html.unescape(re.search(r'<pre[^>]*aria-label="The study as TOML">(.*?)</pre>', text, re.S)[1])
    assert study_from_dict(tomllib.loads(toml)).hash == study_of(tables).hash


@pytest.mark.parametrize("name", list(shipped_studies()))
def test_shipped_studies_survive_being_written_as_toml(name):
    study = load_study(name)
    assert study_from_dict(tomllib.loads(to_toml(study.to_dict()))) == study


def test_provenance_is_there(page):
    for text in ("0123456789ab", "89abcdef0123456789abcdef", "torch 2.14.1", "2023-11-14 22:13 UTC", "fedcba987654"):
        assert text in page.text
    assert "AnyNet C at small from 1,000 draws (rejected: 900 flops below); AnyNet D at" in page.text


@pytest.mark.parametrize(
    "changes",
    [
        {"num_unfinished": 10},
        {"num_failed": 20},
        {"num_diverged": 20},
        {"trials_per_space": 1},
        {"mean_errors_pct": {"anynet_c": 20.0}},
        {"mean_errors_pct": dict.fromkeys(("anynet_a", "anynet_b", *synthetic.MEAN_ERRORS_PCT), 20.0)},
    ],
)
def test_poor_sweeps_have_a_report_too(changes):
    tables = synthetic.tables(rng=np.random.default_rng(0), **changes)
    page = Page(render_report(tables, synthetic.found(tables, judged(tables))))
    assert len(page.all("section")) >= 8
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text.split()


def test_no_network_completed_is_said():
    assert "No network has completed all 4 epochs yet." in Page(report(num_failed=20)).text


def test_same_sweep_same_report(tables):
    assert render_report(tables, only(judged(tables))) == render_report(tables, only(judged(tables)))


def test_report_is_written_whole_and_leaves_no_draft(tables, tmp_path):
    folder = tmp_path / 'it\'s a "run" – ü'
    folder.mkdir()
    write_report(tables, only(judged(tables)), folder / "report.html")
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    assert (folder / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_browser_draws_all_figures_without_an_error(scaled, tmp_path: Path):
    write_report(*scaled, tmp_path / "report.html")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--enable-logging=stderr",
        "--dump-dom", (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('class="main-svg"') >= 11
    assert done.stdout.count('class="plot-container') == 11
    assert 'data-title="Share' not in done.stdout


def test_a_sweep_that_ended_early_says_so_and_calls_no_trial_cancelled_by_hand():
    sweep = synthetic.looked_at({"anynet_c": 60.0, "anynet_d": 20.0}, trials_per_space=32)
    num = looks_taken(sweep)[-1].num_trials
    some = synthetic.at_moment(sweep, num)
    ended = synthetic.with_outcome(some, set(range(num, 64)), "cancelled", attempts=0)
    text = Page(render_report(ended, only(judge_study(ended)))).text
    assert f"Ended early after look {num // 16} of 4" in text
    assert f"decided at look {num // 16}" in text
    assert "for all looks (group-sequential" in text
    assert "cancelled by hand" not in text
