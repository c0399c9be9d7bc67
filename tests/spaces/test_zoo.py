"""Named networks and the texts that name one."""

import pytest

from sweep.spaces import ZOO, Architecture, Mlp, Stage, Vit, regnet, resolve


def test_the_zoo_is_complete():
    sizes = ["200mf", "400mf", "600mf", "800mf", *(f"{n}gf" for n in ("1.6", "3.2", "4.0", "6.4", "8.0", 12, 16, 32))]
    published = [f"{family}_{size}" for family in ("regnetx", "regnety") for size in sizes]
    others = [name for name in ZOO if name not in published and not name.startswith("torchvision:")]
    assert set(published) < set(ZOO)
    assert others == ["regnetx32", "vit_tiny", "vit_small"]
    # Torchvision's are the published ones but for the three that it rounds otherwise, and one that pycls lacks.
    assert len(ZOO) == 24 + 15 + 3
    assert len({network.id for network in ZOO.values()}) == 24 + 4 + 3


def test_stages_of_some_published_networks():
    assert (ZOO["regnetx_200mf"].depths, ZOO["regnetx_200mf"].widths) == ((1, 1, 4, 7), (24, 56, 152, 368))
    assert (ZOO["regnetx_400mf"].depths, ZOO["regnetx_400mf"].widths) == ((1, 2, 7, 12), (32, 64, 160, 384))
    assert ZOO["regnetx_8.0gf"].group_widths == (80, 120, 120, 120)


def test_the_network_of_d2l():
    stages = (Stage(4, 32, 16), Stage(6, 80, 16))
    assert ZOO["regnetx32"] == Architecture(stages, stem_width=32, conv_bias=True, initialisation="xavier")


def test_resolve_by_name_and_by_parameters():
    assert resolve("regnetx_400mf") is ZOO["regnetx_400mf"]
    assert resolve("regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16") == ZOO["regnetx_400mf"]
    assert resolve("regnety: d=13, w0=24, wa=36.44, wm=2.49, g=8") == ZOO["regnety_200mf"]
    assert resolve("mlp:widths=256-128,skip=true,norm=layer") == Mlp((256, 128), skip=True, norm="layer")
    assert resolve("vit:patch=4,width=64,num_blocks=6,num_heads=4") == Vit(4, 64, 6, 4)
    given = resolve("regnetx:d=6,w0=24,wa=32,wm=2.6,g=8,b=2,stem_width=16,num_stages=3")
    assert given == regnet(6, 24, 32, 2.6, 8, b=2, stem_width=16)


@pytest.mark.parametrize("name", ["net.yaml", "my nets/ütwö 'net'.yml", "no suffix"])
def test_resolve_reads_files_on_awkward_paths(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(ZOO["regnety_400mf"].to_yaml(), encoding="utf-8")
    assert resolve(str(path)) == ZOO["regnety_400mf"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regnetx_40mf", "architecture = 'regnetx_40mf' is neither .* did you mean 'regnetx_400mf'?"),
        ("RegNetY_1.6GF", "architecture = 'RegNetY_1.6GF' is neither .* did you mean 'regnety_1.6gf'?"),
        ("missing.yaml", "architecture = 'missing.yaml' is no file; check the path"),
        ("", "architecture = '' is neither"),
        ("regnetx:", "regnetx: '' is not key=value; write for example d=22,w0=24"),
        ("regnetx:d=22", "regnetx: w0, wa, wm, g missing; give d, w0, wa, wm, g"),
        ("regnetx:d=22,d=22", "regnetx: d is given twice; give it once"),
        ("regnetx:d=2.5", "regnetx: d = '2.5' is not a whole number; write for example d=22,w0=24"),
        ("regnetx:wa=x", "regnetx: wa = 'x' is not a number"),
        ("mlp:norm=batch", "mlp: widths missing; give widths"),
        ("mlp:widths=a", "mlp: widths = 'a' is not widths like 256-128; write for example widths=256-128,norm=batch"),
        ("mlp:skip=yes", "mlp: skip = 'yes' is not true or false"),
        ("vit:patch=4,width=64,num_blocks=6,num_heads=5", "num_heads = 5 does not divide the width 64"),
        ("regnetx:stemwidth=3", "regnetx: unknown key 'stemwidth'; did you mean 'stem_width'?"),
        ("regnetx:d=22,w0=20,wa=24,wm=2.5,g=16", "w0 = 20 is not a multiple of 8"),
    ],
)
def test_what_names_no_network_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        resolve(text)


def test_a_faulty_file_is_named(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text("stages: [{depth: 1, width: 8, group_width: 3}]")
    with pytest.raises(ValueError, match=r"net\.yaml: stages\[0\]: group_width = 3"):
        resolve(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"net\.yaml: "):
        resolve(str(path))
