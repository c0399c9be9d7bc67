"""The README's example of spaces and rules of one's own, as it stands there."""

from project.test_readme import blocks

from sweep.scheduling.population import draw_population
from sweep.spaces import network_from_json, rule_pairs
from sweep.studies import load_study


def test_the_example_draws_what_it_says(tmp_path, monkeypatch):
    study_toml, rule = (b.text for b in blocks() if b.heading == "Spaces and rules of your own")
    (tmp_path / "study.toml").write_text(study_toml, encoding="utf-8")
    (tmp_path / "my_rules.py").write_text(rule, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    study = load_study(tmp_path / "study.toml", ["trials_per_space=12"])
    trials, _ = draw_population(study)
    drawn = {space: [network_from_json(t.architecture) for t in trials if t.space == space] for space in study.spaces}
    assert all(n.widths[0] >= 24 and max(n.widths) < 8 * min(n.widths) for n in drawn["starts_wide"])
    assert all(after <= 3 * before for n in drawn["slim"] for before, after in zip(n.widths, n.widths[1:]))
    assert {n.norm for n in drawn["group_norm"]} == {"group"}
    assert [(p.space_without, p.space_with) for p in rule_pairs(study.design_spaces)] == [
        ("anynet_e", "starts_wide"), ("anynet_e", "slim"), ("anynet_e", "group_norm"),
    ]  # fmt: skip
