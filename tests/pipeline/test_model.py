"""Models: composition, what is refused, initial values, names, the preset, combinations."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.model import (
    Combination,
    Model,
    build_model,
    check_architecture,
    combinations,
    combinations_table,
    outline_model,
)
from pipeline.registry import EMBEDDINGS, SUBENCODERS
from pipeline.spec import ArchitectureSpec, Component
from pipeline.strict import read_yaml
from tests.pipeline.networks import (
    HIDDEN_SIZE,
    IDS,
    VOCAB_SIZE,
    collated,
    compose,
    loss_of,
    make_rows,
)

ARCHITECTURES = Path(__file__).parents[2] / "config" / "architectures"
TINY = {"num_layers": 2, "num_heads": 4, "feedforward_size": 32, "hidden_size": HIDDEN_SIZE}


def architecture(
    encoder: str = "lstm", embedding: str = "bert", **options: Any
) -> ArchitectureSpec:
    return ArchitectureSpec(
        embedding=Component(name=embedding), encoder=Component(name=encoder, **options)
    )


def digest(model: Model) -> str:
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        state.update(name.encode() + tensor.numpy().tobytes())
    return state.hexdigest()


def sections(*names: str, **options: Any) -> list[Component]:
    return [Component(name=name, **options.get(name, {})) for name in names]


def test_names_are_public() -> None:
    """Once a model is published, another name here needs a converter."""
    model = compose("transformer", ["mlm", "nsp"], num_layers=1)
    norm = ["bias", "weight"]
    expected = {
        "embedding.word.weight",
        "embedding.position.weight",
        "embedding.segment.weight",
        *(f"embedding.norm.{n}" for n in norm),
        *(
            f"encoder.layers.0.{part}.{n}"
            for part in (
                "attention.query",
                "attention.key",
                "attention.value",
                "attention.output",
                "attention_norm",
                "feed_forward.up",
                "feed_forward.down",
                "feed_forward_norm",
            )
            for n in norm
        ),
        *(f"targets.mlm.{part}.{n}" for part in ("transform", "norm", "output") for n in norm),
        *(f"targets.nsp.{part}.{n}" for part in ("pooler", "output") for n in norm),
    }
    assert set(model.state_dict()) == expected
    recurrent = compose("lstm", ["lm"], num_layers=1).state_dict()
    assert {name for name in recurrent if name.startswith("encoder.")} == {
        f"encoder.rnn.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    assert {name for name in recurrent if name.startswith("targets.")} == {
        "targets.lm.output.weight",
        "targets.lm.output.bias",
    }


@pytest.mark.parametrize(
    ("name", "targets", "millions"),
    [
        ("bert_base", [], 101.7),
        ("bert_base", ["mlm", "nsp"], 119.1),
        ("bert_large", [], 324.5),
        ("bert_large", ["mlm", "nsp"], 348.2),
        ("bert_small", ["mlm", "nsp"], 41.4),
        ("bert_tiny", [], 13.6),
        ("bert_tiny", ["mlm", "nsp"], 22.1),
    ],
)
def test_sizes_are_the_references(name: str, targets: list[str], millions: float) -> None:
    spec = ArchitectureSpec(**read_yaml(ARCHITECTURES / f"{name}.yaml"))
    count = check_architecture(spec, sections(*targets), 21128)
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("path", sorted(ARCHITECTURES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_architecture_can_be_built(path: Path) -> None:
    model = outline_model(ArchitectureSpec(**read_yaml(path)), [], 100)
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    tokens = torch.zeros(2, 5, dtype=torch.int64, device="meta")
    assert model.encode({"token_ids": tokens, "segment_ids": tokens + 1}).shape[:2] == (2, 5)


def test_weights_are_unusable_until_filled() -> None:
    model = build_model(architecture(), IDS, sections("lm"))
    assert all(parameter.isnan().all() for parameter in model.parameters())


REFUSED = [
    (architecture("transformer"), ["lm"], "targets: lm would see the tokens it predicts"),
    (architecture("bilstm"), ["lm"], "targets: lm would see the tokens it predicts"),
    (architecture("gru", bidirectional=True), ["lm"], "targets: lm would see the tokens"),
    (architecture(), ["bilm"], "targets: bilm needs an encoder whose halves look in one"),
    (architecture("lstm", bidirectional=True), ["bilm"], "targets: bilm needs an encoder"),
    (architecture(), ["nsp"], "targets.nsp.pooling: first sees one token only, because encoder"),
    (architecture(), ["lm", "lm"], "targets: lm stands twice; once is enough"),
    (architecture(), ["mlm", "lm"], "targets: mlm replaces tokens that lm predicts; use one"),
    (architecture("bilstm"), ["bilm", "mlm"], "targets: mlm replaces tokens that bilm predicts"),
    (architecture("bilstm"), ["nsp", "s2s"], "targets: no instance kind serves all of them (nsp"),
    (architecture(), ["xlm"], "targets: no target 'xlm'; did you mean"),
    (architecture("lstn"), [], "encoder.name: no encoder 'lstn'; did you mean 'lstm'?"),
    (architecture(embedding="brt"), [], "embedding.name: no embedding 'brt'; did you mean 'bert'"),
]


@pytest.mark.parametrize(("spec", "targets", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(
    spec: ArchitectureSpec, targets: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_architecture(spec, sections(*targets), 100)
    assert caught.value.problems[0].startswith(message)


def test_sizes_that_do_not_fit() -> None:
    spec = ArchitectureSpec(
        embedding=Component(name="word", size=8),
        encoder=Component(name="transformer", **TINY),
    )
    with pytest.raises(ConfigError, match=r"embedding\.size: 8 differs from encoder.hidden_size"):
        check_architecture(spec, [], 100)
    narrow = ArchitectureSpec(
        embedding=Component(name="word", size=8), encoder=Component(name="lstm", hidden_size=16)
    )
    with pytest.raises(ConfigError) as caught:
        check_architecture(narrow, sections("lm", lm={"tied": True}), 100)
    assert str(caught.value) == (
        "targets.lm.tied: the embedding has size 8 and the hidden states 16; a tied softmax needs "
        "them equal"
    )


def test_the_preset_allows_what_the_reference_does() -> None:
    spec = architecture("lstm", hidden_size=8)
    with pytest.raises(ConfigError, match="pooling: first sees one token only"):
        check_architecture(spec, sections("lm", "cls", cls={"num_labels": 2}), 100)
    assert check_architecture(spec, sections("lm", "cls", cls={"num_labels": 2}), 100, "uer-2020")


def test_a_tied_softmax_learns_with_the_embedding() -> None:
    model = compose("lstm", ["lm"], target_options={"lm": {"tied": True}})
    assert "targets.lm.output.weight" not in model.state_dict()
    output: Any = model.targets["lm"].output
    word = model.embedding.get_parameter("word.weight")
    assert output.logits(torch.eye(HIDDEN_SIZE)).t()[7].allclose(word[7] + output.bias[7])
    batch, _ = collated(model, make_rows())
    loss_of(model, batch).backward()
    assert word.grad is not None
    # Tokens that are in no row have a gradient from the softmax alone.
    unseen = sorted(set(range(5, VOCAB_SIZE)) - set(batch["token_ids"].flatten().tolist()))
    assert word.grad[unseen].abs().sum(1).gt(0).all()


class TestInitialValues:
    def test_the_same_seed_gives_the_same_bits(self) -> None:
        same = digest(compose("transformer", ["mlm"])), digest(compose("transformer", ["mlm"]))
        assert same[0] == same[1]
        assert same[0] != digest(compose("transformer", ["mlm"], seed=8))

    def test_they_do_not_depend_on_other_parts(self) -> None:
        alone = compose("lstm", ["lm"]).state_dict()
        more = compose("lstm", ["lm", "cls"], target_options={"cls": {"pooling": "mean"}})
        assert all(torch.equal(alone[k], v) for k, v in more.state_dict().items() if k in alone)

    def test_they_do_not_depend_on_torchs_generator(self) -> None:
        torch.manual_seed(1)
        first = digest(compose("cnn", ["lm"]))
        torch.manual_seed(2)
        assert digest(compose("cnn", ["lm"])) == first

    def test_the_sound_ones(self) -> None:
        model = compose("transformer", ["mlm"], hidden_size=64).state_dict()
        assert model["embedding.norm.weight"].eq(1).all()
        for name, values in model.items():
            if name.endswith("bias"):
                assert values.eq(0).all(), name
        values = model["encoder.layers.0.feed_forward.up.weight"]
        assert values.abs().max() <= 0.04
        assert values.std().item() == pytest.approx(0.02 * 0.88, rel=0.05)
        assert model["targets.mlm.output.weight"].abs().max() <= 1 / 8
        assert model["targets.mlm.output.weight"].std().item() == pytest.approx(
            1 / 8 / 3**0.5, rel=0.05
        )

    def test_forget_gates_are_open(self) -> None:
        model = compose("lstm").state_dict()
        size = HIDDEN_SIZE
        forget = model["encoder.rnn.bias_ih_l1"].view(4, size)
        assert forget[1].eq(1).all()
        assert forget[[0, 2, 3]].eq(0).all()
        assert model["encoder.rnn.bias_hh_l1"].eq(0).all()
        assert model["encoder.rnn.weight_hh_l1"].abs().max() <= size**-0.5

    def test_the_references(self) -> None:
        model = compose("lstm", ["lm"], reference="uer-2020", hidden_size=64)
        for name, values in model.state_dict().items():
            if "norm" in name:
                assert values.eq(1 if name.endswith("weight") else 0).all()
            else:
                assert values.std().item() == pytest.approx(0.02, rel=0.35), name
        assert model.get_parameter("encoder.rnn.weight_ih_l0").abs().max() > 0.06


def test_the_preset_fills_in_what_sections_leave_out() -> None:
    spec = ArchitectureSpec(
        embedding=Component(name="bert", norm="rms"),
        encoder=Component(name="transformer", **TINY),
    )
    model = build_model(spec, IDS, sections("mlm", "nsp"), "uer-2020")
    norms = {
        type(model.get_submodule(name)).__name__
        for name in ("encoder.layers.0.attention_norm", "targets.mlm.norm")
    }
    assert norms == {"UnbiasedNorm"}
    assert type(model.embedding.norm).__name__ == "RMSNorm"


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("lstm", {}),
        ("transformer", {"mask": "causal"}),
        ("transformer", {"mask": "causal", "positions": "rotary", "norm_position": "pre"}),
        ("gated_cnn", {}),
        ("attention", {"mask": "causal"}),
    ],
)
def test_step_by_step_equals_encode(encoder: str, options: dict[str, Any]) -> None:
    model = compose(encoder, **options).eval()
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    cache, parts = None, []
    with torch.no_grad():
        for piece in tokens.split([3, 1, 1], 1):
            hidden, cache = model.step(piece, cache)
            parts.append(hidden)
        whole = model.encode({"token_ids": tokens, "segment_ids": torch.ones_like(tokens)})
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_who_sees_the_future_cannot_generate() -> None:
    tokens = torch.tensor([[5]])
    with pytest.raises(ConfigError, match=r"^encoder\.name: bilstm sees the future"):
        compose("bilstm").step(tokens)
    with pytest.raises(ConfigError, match=r"^encoder\.mask: full sees the future"):
        compose("transformer").step(tokens)


@pytest.mark.parametrize(
    "options",
    [
        {"norm_position": "pre"},
        {"norm": "rms", "norm_position": "pre"},
        {"gated": True, "activation": "silu"},
        {"positions": "rotary"},
        {"norm": "unbiased"},
        {"norm_position": "pre", "norm": "rms", "gated": True, "positions": "rotary"},
    ],
)
def test_modern_choices_train(options: dict[str, Any]) -> None:
    model, rows = compose("transformer", ["mlm"], **options), make_rows((12, 5, 9))
    batch, units = collated(model, rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = loss_of(model, batch) / units
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("encoder", ["transformer", "lstm", "cnn", "bilstm"])
def test_half_precision_is_near(encoder: str) -> None:
    model = compose(encoder, ["mlm"])
    batch, _ = collated(model, make_rows())
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(model, batch).item(), rel=0.01)


@pytest.mark.slow
def test_compiled_is_the_same() -> None:
    model = compose("transformer", ["mlm"], num_layers=1)
    batch, _ = collated(model, make_rows())
    compiled = torch.stack([output.loss_sum for output in torch.compile(model)(batch)]).sum()
    compiled.backward()
    assert compiled.item() == pytest.approx(loss_of(model, batch).item(), rel=1e-4)


TABLE = combinations()
LEGAL = [c for c in TABLE if not c.problem]


def describe(combination: Combination) -> str:
    options = [f"{key}={value}" for key, value in combination.encoder.section().items()][1:]
    names = "+".join(target.name for target in combination.targets)
    return "-".join([combination.encoder.name, *options, names])


def train_two_steps(combination: Combination, embedding: str, subencoder: str | None) -> None:
    targets = [target.name for target in combination.targets]
    options = {target.name: target.section() for target in combination.targets}
    for section in options.values():
        section.pop("name")
    mode = {k: v for k, v in combination.encoder.section().items() if k != "name"}
    model = compose(
        combination.encoder.name,
        targets,
        embedding,
        subencoder,
        target_options=options,
        **{**mode, "num_layers": 1},
    )
    batch, units = collated(model, make_rows((4, 6)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = loss_of(model, batch) / units
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("combination", LEGAL, ids=describe)
def test_every_combination_of_the_table_trains(combination: Combination) -> None:
    for embedding in EMBEDDINGS.names():
        for subencoder in (None, *SUBENCODERS.names()):
            train_two_steps(combination, embedding, subencoder)


def test_the_table_says_what_is_refused() -> None:
    reasons = [c.problem for c in TABLE if c.problem]
    assert 0 < len(reasons) < len(TABLE)
    assert all(re.match(r"targets: (lm would see|bilm needs)", reason) for reason in reasons)


def test_the_table_as_markdown() -> None:
    lines = combinations_table().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    rows = {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}
    assert rows["transformer"]["[mlm, nsp]"] == "yes"
    assert rows["transformer"]["[lm]"] == "no"
    assert rows["transformer, mask: causal"]["[lm]"] == "yes"
    assert rows["bilstm"]["[bilm]"] == "yes"
    assert rows["lstm, bidirectional: true"]["[bilm]"] == "no"
    assert sum(row.count("yes") for row in cells) == len(LEGAL)
