"""Studies: what ships is valid, and each kind of bad input is refused with its field, its value and a remedy."""

import pytest

from sweep.studies import Study, load_study, shipped_studies, study_from_dict

GOOD = {
    "name": "mine",
    "spaces": ["anynet_a", "anynet_b"],
    "scale": [{"flops_min": 4e5, "flops_max": 8e5}],
}


def refusal(*overrides: str, base: str = "quickstart") -> str:
    with pytest.raises(ValueError) as caught:
        load_study(base, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", ["quickstart", "rules_small"])
def test_shipped_studies_load(name):
    study = load_study(name)
    assert study.name == name
    assert study.question
    assert study_from_dict(study.to_dict()) == study


def test_shipped_studies_are_what_is_promised():
    assert {"quickstart", "rules_small"} <= set(shipped_studies())
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
    assert study.scale[0].to_ranges().group_widths == (8,)


def test_hash_is_of_what_decides_the_results():
    study = study_from_dict(GOOD)
    assert study.hash == study_from_dict({**GOOD, "tracking": {"uri": "http://elsewhere"}}).hash
    assert study.hash == study_from_dict({**GOOD, "data": {"path": "/elsewhere"}}).hash
    assert study.hash != study_from_dict({**GOOD, "seed": 1}).hash


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
        ("stopping.grace_epochs=99", "grace_epochs = 99", "max_epochs"),
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
