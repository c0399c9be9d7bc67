"""Studies: what ships is valid, and each kind of bad input is refused with its field, its value and a remedy."""

import pytest

from sweep.spaces import SPACES
from sweep.studies import PRESETS, Recipe, Study, load_study, shipped_studies, study_from_dict
from sweep.studies.study import LATER_FIELDS

GOOD = {
    "name": "mine",
    "spaces": ["anynet_a", "anynet_b"],
    "scale": [{"flops_min": 4e5, "flops_max": 8e5}],
}


def refusal(*overrides: str, base: str = "quickstart") -> str:
    with pytest.raises(ValueError) as caught:
        load_study(base, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_load_and_say_what_they_are_about(name):
    study = load_study(name)
    assert study.name == name
    assert study.question
    assert study_from_dict(study.to_dict()) == study
    text = shipped_studies()[name].read_text(encoding="utf-8")
    assert name == "quickstart" or (study.method and study.expected and "\nfinding = " in text)


@pytest.mark.parametrize("name", shipped_studies())
def test_the_smoke_form_asks_the_same_in_miniature(name):
    study = load_study(name)
    small = study.smoke()
    assert small.name == f"{name}-smoke"
    assert (small.spaces, small.space) == (study.spaces, study.space)
    own = {"max_epochs", "grace_epochs", "num_train", "trials_per_space"}
    assert [scale.model_dump(exclude=own) for scale in small.scale] == [s.model_dump(exclude=own) for s in study.scale]
    assert small.num_trials == len(study.spaces) * len(study.scale)
    for scale in small.scale:
        assert small.data_at(scale.name).num_train * small.stopping_at(scale.name).max_epochs <= 256
    assert small.smoke().data == small.data


def test_what_was_found_does_not_change_what_is_asked():
    study = load_study("seed")
    found = load_study("seed", ["finding=9.9 % after ten epochs", "method=another", "expected=nothing"])
    assert found.finding == "9.9 % after ten epochs"
    assert found.hash == study.hash


def test_shipped_studies_are_what_is_promised():
    promised = {"seed", "deeper_regnet", "resnet_block", "vionet", "perfect_mlp", "norms_and_activations"}
    assert set(shipped_studies()) == promised | {"quickstart", "rules_small", "rules_large", "reference", "scaling"}
    quickstart, rules_small = load_study("quickstart"), load_study("rules_small")
    assert quickstart.spaces == ("anynet_c", "anynet_d", "anynet_e", "regnet_x")
    assert 18 <= quickstart.trials_per_space <= 24
    assert len(rules_small.spaces) == 6
    assert rules_small.trials_per_space == 48


def test_overrides_reach_into_tables():
    study = load_study(
        "quickstart", ["stopping.max_epochs=9", "scale.flops_max=9e5", "name=other", "scale.ranges.group_widths=[8]"]
    )
    assert study.stopping.max_epochs == 9
    assert study.scale[0].flops_max == 9e5
    assert study.name == "other"
    assert study.scale[0].ranges_of(SPACES["anynet_a"]).group_widths == (8,)


def test_hash_is_of_what_decides_the_results():
    study = study_from_dict(GOOD)
    assert study.hash == study_from_dict({**GOOD, "tracking": {"uri": "http://elsewhere"}}).hash
    assert study.hash == study_from_dict({**GOOD, "data": {"path": "/elsewhere"}}).hash
    assert study.hash != study_from_dict({**GOOD, "seed": 1}).hash


def test_settings_that_came_later_leave_the_hash_of_older_studies_as_it_was():
    """A golden value, from before there was matching."""
    assert load_study("quickstart").hash == "40442e204932"
    assert load_study("quickstart", ["judging.match=flops"]).hash != "40442e204932"
    assert load_study("quickstart", ["judging.match_strata=4"]).hash != "40442e204932"
    assert load_study("quickstart", ["rerun.ensemble=3"]).hash != "40442e204932"
    assert load_study("quickstart", ["judging.stop_when=decided"]).hash != "40442e204932"


def test_what_was_recorded_before_a_setting_came_keeps_its_hash():
    """The hash at the commit before `LATER_FIELDS`; a study that sets such a field has another one."""
    study = study_from_dict(GOOD)
    recorded = study.to_dict()
    for table, later in LATER_FIELDS.items():
        tables = recorded[table] if table else recorded
        for values in tables if isinstance(tables, list) else [tables]:
            for name in later:
                del values[name]
    assert study.hash == study_from_dict(recorded).hash == "9d99db7c22d0"
    changes = {"drop_last": False, "l1_decay": 1e-5, "gradient_clip": 1.0, "mixup": 0.2, "random_erasing": 0.5}
    changed = [study_from_dict({**GOOD, "recipe": {name: value}}).hash for name, value in changes.items()]
    assert len({study.hash, *changed}) == 6


def test_later_fields_are_forgotten_at_any_table(monkeypatch):
    """Whoever adds a field to a scale or to the top level relies on it."""
    study, changed = study_from_dict(GOOD), study_from_dict({**GOOD, "trials_per_space": 5})
    before = study.hash
    monkeypatch.setitem(LATER_FIELDS, "", ("trials_per_space",))
    monkeypatch.setitem(LATER_FIELDS, "scale", ("name", "ranges"))
    shorter = study.hash
    assert shorter != before
    assert changed.hash != shorter


def test_the_name_of_a_preset_stands_for_its_table():
    named = study_from_dict({**GOOD, "recipe": "seed"})
    assert named.recipe == Recipe(**PRESETS["seed"])
    assert (
        named.hash == study_from_dict({**GOOD, "recipe": PRESETS["seed"]}).hash == study_from_dict(named.to_dict()).hash
    )
    changed = load_study("quickstart", ["recipe=seed", "recipe.learning_rate=0.5"]).recipe
    assert changed == Recipe(**{**PRESETS["seed"], "learning_rate": 0.5})
    with pytest.raises(ValueError, match="recipe = 'sead': is no preset"):
        load_study("quickstart", ["recipe=sead", "recipe.learning_rate=0.5"])


def test_the_seed_s_recipe_is_plain_sgd():
    recipe = Recipe(**PRESETS["seed"])
    assert (recipe.optimizer, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (
        "sgd",
        128,
        0.05,
        "constant",
    )
    off = ("momentum", "weight_decay", "l1_decay", "gradient_clip", "warmup_steps", "label_smoothing", "mixup")
    assert not any(getattr(recipe, name) for name in (*off, "nesterov", "random_erasing", "flip", "crop_padding"))
    assert recipe.num_steps(60_000) == 469  # as many as d2l's loader has batches, the last of 96 images
    assert recipe.smallest_batch(60_000) == 96


def test_what_another_optimiser_or_schedule_does_without_is_off_unless_asked_for():
    assert Recipe(optimizer="adam").nesterov is False
    assert Recipe(schedule="one_cycle").warmup_steps == 0
    assert Recipe(optimizer="adamw", momentum=0.8, beta2=0.95, schedule="one_cycle", cycle_rise=0.2).momentum == 0.8
    assert (Recipe().nesterov, Recipe().warmup_steps) == (True, 20)


@pytest.mark.parametrize(
    ("num_images", "drop_last", "num_steps", "smallest"),
    [
        (128, True, 2, 64),
        (130, True, 2, 64),
        (130, False, 3, 2),
        (129, False, 2, 64),
        (63, True, 0, 64),
        (63, False, 1, 63),
    ],
)
def test_steps_of_an_epoch(num_images, drop_last, num_steps, smallest):
    recipe = Recipe(batch_size=64, drop_last=drop_last)
    assert (recipe.num_steps(num_images), recipe.smallest_batch(num_images)) == (num_steps, smallest)


def test_a_password_in_the_tracking_uri_is_written_nowhere():
    study = study_from_dict({**GOOD, "tracking": {"uri": "http://me:canary@server"}})
    assert study.tracking.uri == "http://me:canary@server"
    assert "canary" not in str(study.to_dict())


def test_studies_are_frozen():
    with pytest.raises(ValueError):
        study_from_dict(GOOD).name = "other"


@pytest.mark.parametrize(
    ("override", "field", "hint"),
    [
        ("trails_per_space=3", "trails_per_space", "'trials_per_space'"),
        ("stopping.max_epoch=3", "stopping.max_epoch", "'max_epochs'"),
        ("scale.flops_mim=3", "scale.0.flops_mim", "'flops_min'"),
        ("scale.ranges.width_mx=3", "ranges", "'width_max'"),
        ("trials_per_space=0", "trials_per_space = 0", "greater"),
        ("trials_per_space=-4", "trials_per_space = -4", "greater"),
        ('trials_per_space="20"', "trials_per_space = '20'", "integer"),
        ("trials_per_space=2.5", "trials_per_space = 2.5", "integer"),
        ("recipe.learning_rate=0", "recipe.learning_rate = 0", "greater"),
        ("recipe.precision=fp8", "recipe.precision = 'fp8'", "bf16"),
        ("recipe.optimizer=lion", "recipe.optimizer = 'lion'", "'adamw'"),
        ("recipe.beta2=1.0", "recipe.beta2 = 1.0", "less"),
        ("recipe.beta2=0.9", "beta2 = 0.9", "optimizer = 'adam' or 'adamw', not with 'sgd'"),
        ("recipe.step_at=[0.5]", "step_at = (0.5,)", "schedule = 'step', not with 'cosine'"),
        ("recipe.step_factor=0.5", "step_factor = 0.5", "change schedule"),
        ("recipe.cycle_rise=0.5", "cycle_rise = 0.5", "schedule = 'one_cycle'"),
        ("recipe={optimizer='adam', nesterov=true}", "nesterov = True", "optimizer = 'sgd', not with 'adam'"),
        ("recipe={schedule='one_cycle', warmup_steps=9}", "warmup_steps = 9", "rises by itself"),
        ("recipe={schedule='step', step_at=[0.8, 0.5]}", "step_at = [0.8, 0.5]", "least first"),
        ("recipe={schedule='step', step_at=[0.5, 0.5]}", "step_at = [0.5, 0.5]", "once"),
        ("recipe={schedule='step', step_at=[1]}", "recipe.step_at.0 = 1", "less than 1"),
        ("recipe={schedule='step', step_at=[]}", "recipe.step_at", "at least 1"),
        ("recipe.mixup=inf", "recipe.mixup = inf", "finite"),
        ("recipe.random_erasing=1.5", "recipe.random_erasing = 1.5", "less"),
        ("recipe.l1_decay=-1", "recipe.l1_decay = -1", "greater"),
        ("recipe.gradient_clip=-1", "recipe.gradient_clip = -1", "greater"),
        ("recipe.mixupp=1", "recipe.mixupp", "'mixup'"),
        ("recipe=sead", "recipe = 'sead'", "is no preset; name one (seed)"),
        ("recipe=3", "recipe = 3", "dictionary"),
        ("stopping.grace_epochs=99", "grace_epochs = 99", "max_epochs"),
        ("stopping.audit_worst=0.05", "audit_worst = 0.05", "as much or more"),
        ("stopping.reduction_factor=1", "stopping.reduction_factor = 1", "greater"),
        ("stopping.audit_fraction=1.5", "stopping.audit_fraction = 1.5", "less"),
        ("scale.flops_max=1", "flops_max = 1", "widen"),
        ("scale.ranges.width_max=4", "width_max", "width_min"),
        ("scale.ranges.depth_min=9", "depth_m", "depth"),
        ("scale.ranges.group_widths=[300]", "group_widths", "300"),
        ("scale.name=a/b", "scale.0.name", "pattern"),
        ("data.num_train=70000", "num_train", "60000"),
        ("data.name=cifar", "data.name = 'cifar'", "'cifar10'"),
        ("data.name=image_folder", "data: num_classes is missing", "add it"),
        ("data.name=arrays", "data: num_classes is missing", "add it"),
        ("data.num_classes=11", "num_classes = 11, but fashion_mnist has 10", "leave it out"),
        ("data.num_channels=3", "num_channels = 3, but fashion_mnist has 1", "leave it out"),
        ("data.num_channels=2", "data.num_channels = 2", "1 or 3"),
        ("data.num_classes=1", "data.num_classes = 1", "2"),
        ("data.max_bad_share=1.5", "data.max_bad_share = 1.5", "less"),
        ("judging.stop_when=now", "judging.stop_when = 'now'", "'decided'"),
        ("judging.looks=8", "looks = 8", "goes with stop_when = 'decided'"),
        ("judging={stop_when='decided', looks=1}", "judging.looks = 1", "greater"),
        ("judging={stop_when='decided', looks=6}", "judging.looks = 6 with trials_per_space = 20", "to 24"),
        ("recipe.batch_size=9000", "recipe.batch_size = 9000", "num_train"),
        ("spaces=[]", "spaces", "at least 1"),
        ('spaces=["anynet_f"]', "anynet_f", "anynet_"),
        ('spaces=["anynet_a", "anynet_a"]', "anynet_a", "once"),
        ("name=a/b", "name", "slash"),
        ("name=half%2Fway", "name", "%"),
        ('name=""', "name", "at least 1"),
    ],
)
def test_bad_fields_are_named(override, field, hint):
    message = refusal(override)
    assert field in message
    assert hint in message


def test_a_named_data_set_says_what_the_population_depends_on():
    cifar = load_study("quickstart", ["data.name=cifar100", "data.num_validation=10000", "data.num_train=40000"])
    assert (cifar.data.num_classes, cifar.data.num_channels) == (100, 3)
    assert study_from_dict({**GOOD, "data": {"name": "cifar100"}}).data.num_train == 40_000
    assert study_from_dict(cifar.to_dict()) == cifar
    with pytest.raises(ValueError, match="num_validation = 50001, but cifar100 has 50000"):
        study_from_dict({**GOOD, "data": {"name": "cifar100", "num_train": 40_001}})


def test_a_folder_states_what_the_population_depends_on():
    data = study_from_dict({**GOOD, "data": {"name": "image_folder", "num_classes": 7}}).data
    assert (data.num_classes, data.num_channels, data.max_bad_share) == (7, 3, 0.001)
    grey = {**GOOD, "data": {"name": "arrays", "num_classes": 300, "num_channels": 1, "max_bad_share": 0}}
    assert study_from_dict(grey).data.num_channels == 1


def test_the_hash_counts_classes_and_channels_where_the_name_does_not_say_them():
    def hash_of(**data):
        return study_from_dict({**GOOD, "data": data}).hash

    assert hash_of() == hash_of(num_classes=10, num_channels=1, max_bad_share=0.5, path="/elsewhere")
    folder = {"name": "image_folder", "num_classes": 10}
    assert hash_of(**folder) == hash_of(**folder, num_channels=3, max_bad_share=0.5, path="/elsewhere")
    others = ({"num_channels": 1}, {"num_classes": 11}, {"name": "arrays"}, {"num_train": 999})
    assert len({hash_of(**folder), *(hash_of(**{**folder, **one}) for one in others)}) == 5


@pytest.mark.parametrize(("name", "known"), [("quickstart", "40442e204932"), ("rules_small", "ede0464ebeff")])
def test_studies_keep_the_hash_under_which_they_were_recorded(name, known):
    assert load_study(name).hash == known


def test_looks_come_after_equal_shares_of_the_trials():
    study = load_study("quickstart", ["judging.stop_when=decided"])
    assert study.judging.look_sizes(study.num_trials) == (20, 40, 60)
    assert study.judging.look_sizes(81) == (21, 41, 61)
    assert load_study("quickstart").judging.look_sizes(80) == ()
    thirds = load_study("quickstart", ["judging={stop_when='decided', looks=3}"])
    assert thirds.judging.look_sizes(80) == (27, 54)


def test_looks_without_a_rule_to_decide_are_refused():
    message = refusal("judging.stop_when=decided", 'spaces=["anynet_a"]')
    assert "judging.stop_when = 'decided'" in message
    assert "name two that do" in message


def test_the_smoke_form_is_not_looked_at():
    small = load_study("quickstart", ["judging={stop_when='decided', looks=3}"]).smoke()
    assert small.judging.look_sizes(small.num_trials) == ()


def test_several_mistakes_are_all_named():
    message = refusal("trials_per_space=0", "stopping.reduction_factor=1")
    assert "trials_per_space" in message
    assert "reduction_factor" in message


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="spaces: is missing"):
        study_from_dict({"name": "x", "scale": [{"flops_min": 1, "flops_max": 2}]})


def test_unknown_study_names_the_nearest():
    with pytest.raises(ValueError, match="'quickstart'"):
        load_study("quikstart")


@pytest.mark.parametrize("text", ["name = ", "name = 'x'\nname = 'y'", "\udc80"])
def test_broken_toml_names_the_file(tmp_path, text):
    path = tmp_path / "my study.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"my study\.toml"):
        load_study(path)


@pytest.mark.parametrize("override", ["nonsense", "=3", "scale.0.name=x", "spaces.x=1"])
def test_malformed_overrides_are_refused(override):
    with pytest.raises(ValueError):
        load_study("quickstart", [override])


def test_an_awkward_name_survives():
    study = study_from_dict({**GOOD, "name": 'größe "2" <b> ’ 名前'})
    assert study_from_dict(study.to_dict()).name == 'größe "2" <b> ’ 名前'
    assert isinstance(study, Study)


OWN = {"name": "wide_start", "base": "anynet_e", "where": "widths[0] >= 24"}


def test_a_study_has_spaces_of_its_own():
    study = study_from_dict({**GOOD, "space": [OWN], "spaces": ["anynet_e", "wide_start"]})
    assert [space.name for space in study.design_spaces] == ["anynet_e", "wide_start"]
    assert study.get_space("wide_start").rule.claim == "widths[0] >= 24"
    assert study_from_dict(study.to_dict()) == study
    assert study.hash != study_from_dict({**GOOD, "spaces": ["anynet_e", "regnet_x"]}).hash
    assert study.colour_of("wide_start") != study.colour_of("anynet_e")


def test_spaces_of_each_family_have_their_table():
    scale = {**GOOD["scale"][0], "mlp": {"depth_max": 3, "norm": ["batch"]}, "vit": {"patch": 7}}
    study = study_from_dict({**GOOD, "scale": [scale], "spaces": ["anynet_e", "mlp_d", "vit"]})
    convolutional, perceptrons, transformers = (study.scale[0].ranges_of(space) for space in study.design_spaces)
    assert convolutional == study_from_dict(GOOD).scale[0].ranges_of(SPACES["anynet_e"])
    assert (perceptrons.depth_max, perceptrons.norm, transformers.patch) == (3, ("batch",), (7,))
    assert {"norm", "skip"} <= study.varied_parts
    assert "patch" not in study.varied_parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": [{**OWN, "name": "anynet_a"}]}, "space = .*: space names name 'anynet_a' twice; name each once"),
        ({"space": [{**OWN, "base": "anynet_f"}]}, r"space\.0: space = 'anynet_f' is not known; did you mean 'anynet_"),
        ({"space": [{**OWN, "where": "widthss[0] > 1"}]}, r"space\.0: where = .* did you mean 'widths'\?"),
        ({"space": [{**OWN, "wher": "depth > 1"}]}, r"space\.0\.wher: unknown key; did you mean 'where'\?"),
        (
            {"space": [{**OWN, "ranges": {"depthmax": 1}}]},
            r"space\.0: ranges: unknown key 'depthmax'; did you mean 'depth_max'",
        ),
        ({"spaces": ["wide_start"]}, "spaces = .*: space = 'wide_start' is not known"),
        (
            {
                "space": [{"name": "deep", "base": "anynet_e", "ranges": {"depth_min": 5}}],
                "spaces": ["deep"],
                "scale": [{**GOOD["scale"][0], "ranges": {"depth_max": 3}}],
            },
            "study: deep at scale 'small': depth_min = 5 is above depth_max = 3",
        ),
        (
            {"space": [{"name": "spare", "base": "anynet_e", "ranges": {"depth_min": 0}}]},
            "study: spare at scale 'small': depth_min = 0 is not a positive whole number",
        ),
        (
            {"scale": [{**GOOD["scale"][0], "mlp": {"norm": ["bach"]}}]},
            r"scale\.0\.mlp: norm = 'bach' is not known; did",
        ),
        ({"scale": [{**GOOD["scale"][0], "vit": {"heads": 2}}]}, r"scale\.0\.vit: unknown key 'heads'"),
        ({"scale": [{**GOOD["scale"][0], "ranges": {"block": "basic"}}]}, r"scale\.0\.ranges: group_widths = "),
    ],
)
def test_impossible_spaces_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        study_from_dict({**GOOD, **changes})


def test_a_list_of_networks_is_a_space():
    study = study_from_dict(
        {**GOOD, "space": [{"name": "two", "networks": ["regnetx32", "mlp:widths=64"]}], "spaces": ["two"]}
    )
    (space,) = study.design_spaces
    assert space.size(None) == 2
    assert [network.depth for network in space.networks] == [10, 1]
    for entry, message in (
        ({"networks": ["regnetx31"]}, r"space\.0: networks = 'regnetx31' is no known network"),
        ({"networks": ["regnetx32"] * 2}, r"space\.0: networks = 'regnetx32' is there twice"),
        ({"networks": ["regnetx32"], "base": "anynet_a"}, r"space\.0: networks stands beside other keys than name"),
        ({}, r"space\.0: base is missing; name the space"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            study_from_dict({**GOOD, "space": [{"name": "two", **entry}], "spaces": ["two"]})


# -- scales: budgets of their own, and networks of each other ----------------------------------------------------------

SMALL = {"name": "small", "resolution": 20, "flops_min": 4e5, "flops_max": 8e5}
LARGE = {"name": "large", "of": "small", "width_factor": 2.0, "max_epochs": 20, "grace_epochs": 2, "num_train": 9000}
BUDGET = {"stopping": {"max_epochs": 9, "reduction_factor": 3}, "data": {"num_train": 6000}}


def with_scales(*scales, **more):
    return study_from_dict({**GOOD, **BUDGET, **more, "scale": list(scales)})


def test_a_scale_has_epochs_and_images_of_its_own():
    study = with_scales(
        SMALL | {"num_train": 4000},
        SMALL | {"name": "long", "max_epochs": 30},
        SMALL | {"name": "late", "grace_epochs": 2},
    )
    assert [study.stopping_at(scale.name).rungs for scale in study.scale] == [(1, 3), (1, 3, 9, 27), (2, 6)]
    assert [study.data_at(scale.name).num_train for scale in study.scale] == [4000, 6000, 6000]
    assert study.stopping_at("small") == study.stopping
    assert study.data_at("long") == study.data
    assert study.num_trials == 3 * 2 * 48
    assert study_from_dict(study.to_dict()) == study


def test_what_a_scaled_scale_leaves_out_is_as_in_its_original():
    study = with_scales(SMALL, LARGE, {"name": "larger", "of": "large", "depth_factor": 2, "num_train": 0})
    larger = study.get_scale("larger")
    assert (larger.resolution, larger.max_epochs, larger.grace_epochs, larger.num_train) == (20, 20, 2, 0)
    assert study.data_at("larger").num_train == 6000  # said to be the study's
    assert larger.band is None
    assert [scale.name for scale in study.lineage("larger")] == ["small", "large", "larger"]
    assert study_from_dict(study.to_dict()) == study
    assert study.hash == study_from_dict(study.to_dict()).hash
    of_objects = Study(**{**GOOD, **BUDGET, "scale": study.scale})
    assert of_objects == study


def test_trials_of_a_scaled_scale_are_counted():
    parts = [{"name": "part", "of": "large", "trials_per_space": 12}, {"name": "more", "of": "part"},
             {"name": "most", "of": "small", "trials_per_space": 99}]  # fmt: skip
    study = with_scales(SMALL, LARGE, *parts)
    assert [study.trials_at(scale.name) for scale in study.scale] == [48, 48, 12, 12, 48]
    assert study.num_trials == 2 * (48 + 48 + 12 + 12 + 48)


@pytest.mark.parametrize(
    ("change", "is_repeat"),
    [
        ({}, True),
        ({"trials_per_space": 12}, True),
        ({"grace_epochs": 2}, True),  # nothing is stopped there
        ({"max_epochs": 9, "num_train": 6000, "resolution": 20}, True),
        ({"width_factor": 1.1}, False),
        ({"depth_factor": 2}, False),
        ({"resolution": 28}, False),
        ({"max_epochs": 10}, False),
        ({"num_train": 5000}, False),
    ],
)
def test_a_scale_that_changes_nothing_is_a_repeat(change, is_repeat):
    study = with_scales(SMALL, {"name": "again", "of": "small", **change})
    assert study.is_repeat("again") == is_repeat
    assert not study.is_repeat("small")
    assert [scale.name for scale in study.judged_scales] == (["small"] if is_repeat else ["small", "again"])


def test_a_scaled_scale_is_repeated_as_well():
    study = with_scales(SMALL, LARGE, {"name": "again", "of": "large"}, {"name": "and_again", "of": "again"})
    assert [study.is_repeat(scale.name) for scale in study.scale] == [False, False, True, True]


@pytest.mark.parametrize(
    ("scales", "words"),
    [
        ([{"name": "small"}], "flops_min is missing; add it, or name in `of` the scale whose networks these are, sca"),
        ([SMALL, {"name": "large", "of": "small", "flops_min": 1e6}], "flops_max is missing; add it, or leave both o"),
        ([SMALL, LARGE | {"of": "smal"}], "of = 'smal' of scale 'large' names no earlier scale; did you mean 'small'?"),
        ([{"name": "large", "of": "small"}, SMALL], "names no earlier scale; put the scale that it scales before it"),
        ([SMALL | {"of": "small"}], "names no earlier scale"),
        ([SMALL, LARGE | {"width_factor": 0}], "width_factor = 0: input should be greater than 0"),
        ([SMALL, LARGE | {"depth_factor": -1.5}], "depth_factor = -1.5: input should be greater than 0"),
        ([SMALL, LARGE | {"depth_factor": float("inf")}], "depth_factor = inf"),
        ([SMALL | {"width_factor": 2}], "width_factor = 2 stands without of; name there the earlier scale"),
        ([SMALL | {"trials_per_space": 3}], "trials_per_space = 3 stands without of"),
        ([SMALL, LARGE | {"ranges": {"depth_max": 9}}], "ranges stands beside of = 'small', whose networks have"),
        ([SMALL, LARGE | {"vit": {"depth_max": 9}}], "vit stands beside of = 'small'"),
        ([SMALL, LARGE | {"of": 3}], "scale.1.of = 3"),
        ([SMALL, LARGE | {"of": ["small"]}], "scale.1.of = ['small']"),
        ([SMALL | {"max_epochs": -1}], "max_epochs = -1: input should be greater"),
        ([SMALL | {"grace_epochs": 10}], "scale 'small': grace_epochs = 10 is more than max_epochs = 9"),
        ([SMALL, LARGE | {"max_epochs": 1}], "scale 'large': grace_epochs = 2 is more than max_epochs = 1"),
        ([SMALL | {"num_train": 59_999}], "scale 'small': num_train + num_validation = 69999, but fashion_mnist has"),
        ([SMALL | {"num_train": 100}], "batch_size = 128 is more than scale 'small': num_train = 100; an epoch"),
        ([SMALL, "large"], "scale.1 = 'large'"),
        ("small", "scale = 'small'"),
    ],
)  # fmt: skip
def test_scales_that_cannot_be_are_refused(scales, words):
    with pytest.raises(ValueError) as caught:
        study_from_dict({**GOOD, **BUDGET, "scale": scales})
    assert words in str(caught.value)


def test_the_hash_counts_what_a_scale_has_of_its_own():
    changes = [{}, {"max_epochs": 20}, {"grace_epochs": 2}, {"num_train": 5000}]
    assert len({with_scales(SMALL | change).hash for change in changes}) == 4
    factors = [{}, {"width_factor": 3.0}, {"depth_factor": 2.0}, {"trials_per_space": 5}, {"max_epochs": 9}]
    assert len({with_scales(SMALL, LARGE | change).hash for change in factors}) == 5
    assert with_scales(SMALL).hash == with_scales(SMALL | {"max_epochs": 0, "width_factor": 1.0}).hash


def test_the_smoke_form_makes_every_scale_small():
    study = with_scales(SMALL | {"num_train": 4000}, LARGE, {"name": "part", "of": "large", "trials_per_space": 7})
    small = study.smoke()
    assert [small.stopping_at(scale.name).max_epochs for scale in small.scale] == [2, 2, 2]
    assert [small.data_at(scale.name).num_train for scale in small.scale] == [128, 128, 128]
    assert [small.trials_at(scale.name) for scale in small.scale] == [1, 1, 1]
    assert (small.get_scale("large").width_factor, small.get_scale("large").of) == (2.0, "small")
    assert small.smoke() == small
