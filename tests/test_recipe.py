"""What is to be done: the same as text, as dataclasses and as TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt import catalogue as module
from graphopt.catalogue import LOSSLESS, ON_REQUEST, PASSES, parse_pass
from graphopt.compress.integers.blocks import Blocks
from graphopt.compress.integers.dynamic import Dynamic
from graphopt.compress.sparsify import Sparsify
from graphopt.errors import InputError, UsageError
from graphopt.graph.edit import Editor
from graphopt.graph.record import Exactness
from graphopt.protocol import Context, Named, Pass
from graphopt.recipe import Recipe, choose
from graphopt.rewrite import Clean, Fold, Strip
from graphopt.spelling import spec


@dataclass(frozen=True)
class Everything(Pass):
    """A pass with a field of every kind."""

    name: ClassVar[str] = "every-thing"
    summary: ClassVar[str] = "does nothing"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    rules: ClassVar[Mapping[str, str]] = {}

    flag: bool = False
    number: int = 0
    share: float = 0.5
    word: str = ""

    def run(self, edit: Editor, ctx: Context) -> None:
        """Nothing."""


VALUES: Mapping[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8")),
}


def passes(kinds: tuple[type[Pass], ...]) -> st.SearchStrategy[Pass]:
    """Passes with any values in their fields."""
    return st.one_of(
        [st.builds(kind, **{f.name: VALUES[type(f.default)] for f in dataclasses.fields(kind)}) for kind in kinds]
    )


ANY = passes((*LOSSLESS, Everything))
SPARSE = st.builds(
    lambda kind, **more: Sparsify(**kind, **more),
    st.one_of(
        st.fixed_dictionaries({"share": st.floats(0, 1, exclude_min=True, exclude_max=True)}),
        st.fixed_dictionaries({"threshold": st.floats(0, allow_infinity=False, exclude_min=True)}),
        st.integers(2, 99).flatmap(lambda m: st.integers(1, m - 1).map(lambda n: {"pattern": f"{n}:{m}"})),
    ),
    by=st.sampled_from(["obs", "magnitude"]),
    refit=st.booleans(),
)
RECIPES = st.builds(
    Recipe,
    st.lists(ANY).map(tuple),
    st.lists(VALUES[str]).map(tuple),
    st.booleans(),
    sparsify=st.none() | SPARSE,
)


@pytest.fixture(autouse=True, scope="module")
def _everything_is_known() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PASSES", {**PASSES, Everything.name: Everything})
        yield


@settings(deadline=None)
@given(ANY | SPARSE)
def test_a_pass_is_read_from_the_text_it_is_written_as(step: Named) -> None:
    assert parse_pass(spec(step)) == step


@settings(deadline=None)
@given(RECIPES)
def test_a_recipe_is_read_from_the_toml_it_is_written_as(recipe: Recipe) -> None:
    assert Recipe.parse(recipe.text()) == recipe
    assert Recipe.parse(recipe.text()).text() == recipe.text()


@pytest.mark.parametrize("kind", PASSES.values(), ids=PASSES)
def test_every_field_of_every_pass_has_a_default_of_a_plain_type(kind: type[Named]) -> None:
    assert all(type(f.default) in VALUES for f in dataclasses.fields(kind))


@pytest.mark.parametrize("kind", [*LOSSLESS, *ON_REQUEST], ids=lambda p: p.name)
def test_what_rewrites_needs_no_fields(kind: type[Pass]) -> None:
    assert spec(kind()) == kind.name
    assert parse_pass(kind.name) == kind()


def test_passes_are_known_by_name() -> None:
    assert list(PASSES) == [
        "inline",
        "strip",
        "clean",
        "fold",
        "shape",
        "branches",
        "sequences",
        "layout",
        "sandwich",
        "algebra",
        "absorb",
        "fuse-norm",
        "fuse-activation",
        "fuse-rotary",
        "fuse-attention",
        "fuse-linear",
        "fuse-product",
        "fuse-chain",
        "fuse-sum",
        "fuse-parallel",
        "lower",
        "upgrade",
        "border",
        "onnxsim",
        "unquantize",
        "lowrank",
        "tucker",
        "separable",
        "codebook",
        "sparsify",
        "quantize",
        "blocks",
        "dynamic",
        "half",
    ]
    assert all(PASSES[name].name == name for name in PASSES)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("clean", Clean()),
        (" fold ", Fold()),
        ("fold{}", Fold()),
        ("fold{max_bytes=5}", Fold(5)),
        ("fold{ max_bytes = 1_000 }", Fold(1000)),
        ("every-thing{share=1}", Everything(share=1)),
        ('sparsify{pattern="2:4"}', Sparsify(pattern="2:4")),
        ("blocks{tables=false,bits=8}", Blocks(tables=False, bits=8)),
        ("dynamic{always=true}", Dynamic(always=True)),
        ("every-thing{word='a}b{c', flag=true}", Everything(flag=True, word="a}b{c")),
    ],
)
def test_texts_that_are_understood(text: str, step: Named) -> None:
    assert parse_pass(text) == step


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no pass is called ''"),
        ("Fold", "no pass is called 'Fold'"),
        ("fold{max_bytes=5", "no pass is called"),
        ("fold{max_bytes}", "cannot be read"),
        ("fold{max_bytes=5, max_bytes=6}", "cannot be read"),
        ("fold{max_bytes=1.5}", "is of type int, not float"),
        ("fold{max_bytes.x=1}", "is of type int, not dict"),
        ("every-thing{share='1'}", "is of type float, not str"),
        ("fold{depth=1}", "fold has no field 'depth': it has max_bytes"),
    ],
)
def test_texts_that_are_not(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pass(text)
    assert reason in str(caught.value)


def test_without_passes_the_lossless_ones_are_meant() -> None:
    assert Recipe.of("lossless") == Recipe.of() == Recipe() == Recipe(tuple(p() for p in LOSSLESS))
    assert Recipe.parse("version = 1") == Recipe()


def test_a_recipe_without_any_pass_stays_one() -> None:
    nothing = Recipe.of(["strip"], keep_metadata=True)
    assert nothing.passes == Recipe.parse(nothing.text()).passes == ()


def test_a_lossy_pass_comes_last_wherever_it_is_named() -> None:
    recipe = Recipe.of(["sparsify{share=0.5}", "clean"])
    assert (recipe.passes, recipe.sparsify) == ((Clean(),), Sparsify(share=0.5))
    assert tomllib.loads(recipe.text())["passes"] == ["clean", "sparsify{share=0.5}"]
    assert recipe.lossy
    assert not recipe.cuts
    assert not Recipe.of("clean").lossy
    assert Recipe.of(max_drop=["accuracy=0.1"]).cuts
    assert not Recipe.of("sparsify{share=0.5}", max_drop=["accuracy=0.1"]).cuts
    with pytest.raises(UsageError, match="sparsify is given twice"):
        Recipe.of(["sparsify{share=0.5}", "sparsify{share=0.6}"])
    with pytest.raises(InputError, match="mine is no recipe: sparsify"):
        Recipe.parse('version = 1\npasses = ["sparsify{share=2}"]', "mine")


def test_keeping_metadata_is_leaving_out_strip() -> None:
    assert Recipe.of(keep_metadata=True).passes == tuple(p() for p in LOSSLESS if p is not Strip)
    assert Recipe.of(["strip", "clean"], keep_metadata=True).passes == (Clean(),)


def test_the_text_is_plain_toml_and_says_no_more_than_it_must() -> None:
    assert tomllib.loads(Recipe.of(["clean", "fold{max_bytes=5}"]).text()) == {
        "version": 1,
        "passes": ["clean", "fold{max_bytes=5}"],
    }
    full = tomllib.loads(Recipe.of(["clean"], ["a b", 'say "x"'], freeze=True).text())
    assert full == {"version": 1, "passes": ["clean"], "skip": ["a b", 'say "x"'], "freeze": True}


def test_a_recipe_is_read_from_a_file(tmp_path: Path) -> None:
    recipe = Recipe.of(["fold{max_bytes=5}"], ["ключ"], freeze=True)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.text(), encoding="utf-8")
    assert Recipe.read(path) == recipe


def test_what_is_no_recipe_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.toml cannot be read"):
        Recipe.read(tmp_path / "mine.toml")
    with pytest.raises(InputError, match="mine is a recipe of version 9"):
        Recipe.parse("version = 9", "mine")
    with pytest.raises(InputError, match="mine is not TOML"):
        Recipe.parse("version", "mine")
    with pytest.raises(InputError, match="mine is no recipe: no pass is called 'vanish'"):
        Recipe.parse('version = 1\npasses = ["vanish"]', "mine")


@pytest.mark.parametrize("text", [".".join("a" * 50_000) + " = 1", "# " + "a" * (1 << 22)])
def test_what_would_take_gigabytes_to_parse_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="mine cannot be read: it is too long, or its tables are too deep"):
        Recipe.parse(text, "mine")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_a_recipe_is_not_read_from_a_device() -> None:
    with pytest.raises(InputError, match="it is no file"):
        Recipe.read(Path("/dev/zero"))


def test_what_the_system_says_of_a_file_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.read(tmp_path / "mine.toml")
    assert str(caught.value) == f"{tmp_path / 'mine.toml'} cannot be read: No such file or directory"
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match="it is not UTF-8 text"):
        Recipe.read(tmp_path / "binary.toml")


def test_a_lone_text_is_a_list_of_it() -> None:
    assert Recipe.of("clean", "conv0") == Recipe.of(["clean"], ["conv0"])


@pytest.mark.parametrize("given", [5, [5], [None], {b"clean"}, [["clean"]]])
def test_what_is_no_list_of_text_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="passes is a list of text, not "):
        Recipe.of(given)
    with pytest.raises(UsageError, match="skip is a list of text, not "):
        Recipe.of(None, given)


def test_an_empty_list_of_passes_is_none_of_them_everywhere() -> None:
    assert Recipe.of([]).passes == Recipe.parse("version = 1\npasses = []").passes == ()
    assert choose(None, passes=[], skip=None, freeze=False, keep_metadata=False).passes == ()
    assert choose(None, passes=None, skip=None, freeze=False, keep_metadata=False) == Recipe()
