"""An ECG reader and an LLM, joined: what is frozen and what learns, and that a batch is no more than its conversations."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from ecgchat.conversation import collate, tokenise
from ecgchat.models.coca import CocaConfig, CocaModel, TextTowerSize, bert_config
from ecgchat.models.ecg_chat import IGNORE, EcgChatModel
from ecgchat.models.ecg_reader import EcgReader, ProjectorConfig
from ecgchat.models.ecg_tower import EcgTowerConfig
from ecgchat.small_llm import SmallLlmConfig, build_small_llm, train_chat_tokenizer, train_small_llm

SIZE = SmallLlmConfig(width=32, layers=2, heads=4, context_length=128, steps=30, batch=4, row=48, learning_rate=1e-2)
TOWER = EcgTowerConfig(sampling_rate_hz=100, duration_s=2, patch_samples=50, width=16, layers=2, heads=4)
"""Four patches."""


def said(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


NONE = said("What is a P wave?", "The depolarisation of the atria.")
ONE = said("<ecg>\nWhich rhythm?", "Sinus rhythm.")
TWO = [*said("<ecg>\n<ecg>\nWhat has changed?", "The rate."), *said("How?", "It was faster before, and regular.")]
TALKS = [NONE, ONE, TWO]
TEXTS = [" ".join(turn["value"] for turn in talk) for talk in TALKS]


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors of this size are slower on several, the more so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return train_chat_tokenizer(TEXTS * 4, 320)


@pytest.fixture(scope="module")
def coca():
    torch.manual_seed(0)
    text = bert_config(TextTowerSize(layers=1, heads=4), TOWER.width, 50, 24)
    about = CocaConfig(ecg=asdict(TOWER), text=text, decoder={"layers": 1, "heads": 4}, latent_width=8)
    return CocaModel(about).eval()


def joined(coca, tokenizer, tokens="all_tokens_before_norm", kind="mlp2x_gelu", dtype=torch.float32):
    """A reader with a new projector, and a frozen LLM with random weights."""
    torch.manual_seed(1)
    reader = EcgReader.on_top_of(coca, ProjectorConfig(tokens, kind), SIZE.width)
    llm = build_small_llm(tokenizer, SIZE).requires_grad_(False)
    return EcgChatModel(reader.to(dtype), llm.to(dtype))


@pytest.fixture
def model(coca, tokenizer):
    return joined(coca, tokenizer)


@pytest.fixture
def batched(model, tokenizer):
    """Conversations and their ECGs to a batch."""

    def batch(talks, ecgs, pad_on="right"):
        tokens = model.reader.config.tokens_per_ecg
        tokenised = [tokenise(tokenizer, talk, tokens, SIZE.context_length) for talk in talks]
        return collate(tokenised, ecgs, tokenizer.pad_token_id, pad_on)

    return batch


def recordings(count, seed=2):
    return torch.randn(count, 12, TOWER.samples, generator=torch.Generator().manual_seed(seed))


# --- the reader


@pytest.mark.parametrize("kind", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize(("tokens", "count"), [("all_tokens_before_norm", 5), ("patch_tokens_after_norm", 4)])
def test_the_reader_gives_as_many_tokens_as_its_configuration_says(coca, tmp_path, tokens, count, kind):
    reader = EcgReader.on_top_of(coca, ProjectorConfig(tokens, kind), 24)
    assert reader.config.tokens_per_ecg == count
    read = reader(recordings(3))
    assert read.shape == (3, count, 24)
    expected = reader.projector(getattr(coca.ecg(recordings(3)), tokens))
    torch.testing.assert_close(read, expected, rtol=0, atol=0)
    reader.save_pretrained(tmp_path)
    again = EcgReader.from_pretrained(tmp_path)
    assert torch.equal(again(recordings(3)), read)
    for each in (reader, again):
        assert not any(parameter.requires_grad for parameter in each.tower.parameters())
        assert all(parameter.requires_grad for parameter in each.projector.parameters())


def test_a_projector_of_no_known_kind_is_refused():
    with pytest.raises(ValueError, match=r"projector.tokens 'some': expected all_tokens_before_norm or patch_tokens"):
        ProjectorConfig(tokens="some")
    with pytest.raises(ValueError, match=r"projector.kind 'deep': expected linear or mlp2x_gelu"):
        ProjectorConfig(kind="deep")


# --- what learns


def test_a_step_moves_the_projector_and_nothing_else(model, batched):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    model.train()
    model(batched(TALKS, recordings(3))).backward()
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {f"reader.projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in moved)


def test_what_is_frozen_stays_as_it_is_evaluated_while_the_rest_trains(model):
    model.train()
    assert model.training
    assert model.reader.projector.training
    assert not any(module.training for module in model.reader.tower.modules())
    assert not any(module.training for module in model.llm.modules())
    model.llm.lm_head.weight.requires_grad_(True)
    model.train()
    assert model.llm.training, "an LLM that learns trains"


def test_conversations_without_an_ecg_reach_the_projector_all_the_same(model, batched):
    """Ranks reduce the same gradients in the same order, whatever they have drawn."""
    model(batched([NONE, NONE], recordings(1))).backward()
    for name, parameter in model.reader.projector.named_parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name


def test_where_nothing_is_to_be_said_the_loss_is_nought_and_so_is_its_gradient(model, batched):
    """As for a rank whose places are all padding."""
    batch = batched([ONE[:1]], recordings(1))
    loss = model(batch)
    loss.backward()
    assert loss == 0
    assert all((parameter.grad == 0).all() for parameter in model.reader.projector.parameters())


# --- what is read


def test_the_loss_depends_on_the_ecg_where_there_is_one(model, batched):
    losses = {len(talk): [model(batched([talk], recordings(2, seed))) for seed in (2, 3)] for talk in (ONE, TWO)}
    for first, second in losses.values():
        assert not torch.isclose(first, second, rtol=1e-4)
    first, second = (model(batched([NONE], recordings(1, seed))) for seed in (2, 3))
    assert torch.equal(first, second)


def test_each_ecg_stands_where_its_own_mark_stands(model, batched):
    ecgs = recordings(3)
    batch = batched(TALKS, ecgs)
    read, embedded = model.reader(ecgs), model.embed(batch)
    assert torch.equal(embedded[batch.ecg_places], read.flatten(0, 1))
    assert torch.equal(embedded[1][batch.ecg_places[1]], read[0])
    words = ~batch.ecg_places
    assert torch.equal(embedded[words], model.llm.get_input_embeddings()(batch.tokens)[words])
    torch.testing.assert_close(model.embed(batch._replace(millivolts=torch.zeros(0)), read), embedded)
    other = model(batched(TALKS, ecgs[[0, 2, 1]]))
    assert not torch.isclose(other, model(batch), rtol=1e-4)


def test_the_loss_of_a_padded_batch_is_the_sum_over_its_conversations(model, batched):
    ecgs = recordings(3)
    alone = [model(batched([NONE], ecgs[:1])), model(batched([ONE], ecgs[:1])), model(batched([TWO], ecgs[1:]))]
    for pad_on in ("left", "right"):
        torch.testing.assert_close(model(batched(TALKS, ecgs, pad_on)), sum(alone), rtol=1e-5, atol=1e-4)


def test_the_loss_is_of_the_next_token_of_what_the_assistant_says(model, batched):
    batch = batched([ONE], recordings(1))
    logits = model.llm(inputs_embeds=model.embed(batch)).logits[0]
    places = [place for place, label in enumerate(batch.labels[0].tolist()) if label != IGNORE]
    expected = -sum(logits[place - 1].log_softmax(-1)[batch.tokens[0, place]] for place in places)
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)


# --- what is said


def test_a_batch_padded_on_the_left_says_what_each_conversation_says_alone(model, batched):
    asked = [NONE[:1], ONE[:1], TWO[:3]]
    ecgs = recordings(3)
    how = {"do_sample": False, "min_new_tokens": 12, "pad_token_id": 0}
    together = model.eval().generate(batched(asked, ecgs, "left"), 12, **how)
    alone = [
        model.generate(batched([talk], shown, "left"), 12, **how)[0]
        for talk, shown in zip(asked, (ecgs[:1], ecgs[:1], ecgs[1:]), strict=True)
    ]
    assert together.tolist() == [answer.tolist() for answer in alone]
    assert together.shape == (3, 12)
    assert len({tuple(answer) for answer in together.tolist()}) > 1


# --- precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_built_in_both_precisions(coca, tokenizer, batched, dtype):
    model = joined(coca, tokenizer, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    ecgs = recordings(3)
    loss = model(batched(TALKS, ecgs.to(dtype)))
    assert loss.dtype == torch.float32
    loss.backward()
    assert {parameter.grad.dtype for parameter in model.reader.projector.parameters()} == {dtype}
    exact = joined(coca, tokenizer)(batched(TALKS, ecgs))
    assert loss.item() == pytest.approx(exact.item(), rel=0 if dtype == torch.float32 else 0.02)


# --- the small LLM


def trained(tokenizer, seed):
    size = SmallLlmConfig(**{**asdict(SIZE), "seed": seed})
    llm = build_small_llm(tokenizer, size)
    losses = []
    texts = [tokenise(tokenizer, talk, 0, SIZE.context_length).tokens for talk in TALKS]
    train_small_llm(llm, texts, size, lambda step, loss, rate: losses.append((step, loss)))
    return llm, losses


def test_a_small_llm_learns_and_its_seed_alone_decides_how(tokenizer):
    llm, losses = trained(tokenizer, seed=0)
    assert [step for step, _ in losses] == list(range(1, SIZE.steps + 1))
    assert losses[-1][1] < losses[0][1] / 2
    again, other = trained(tokenizer, seed=0)[0], trained(tokenizer, seed=1)[0]
    weights = [parameters_to_vector(each.parameters()) for each in (llm, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not llm.training
