"""Counted FLOPs are those that torch's own counter sees, within 2 %: it leaves out gradients that nothing asks for."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from ecgchat.losses import caption_loss, contrastive_loss
from ecgchat.models.coca import CaptionDecoderConfig, CocaConfig, CocaModel, TextTowerSize, bert_config
from ecgchat.models.ecg_chat import ChatBatch, EcgChatModel
from ecgchat.models.ecg_reader import EcgReader, ProjectorConfig
from ecgchat.models.ecg_tower import EcgTowerConfig
from ecgchat.models.flops import ChatFlops, CocaFlops, weight_flops
from jobs.instruct import LoraSettings, with_adapters

TOWER = EcgTowerConfig(sampling_rate_hz=100, duration_s=4, patch_samples=10, width=64, layers=2, heads=4)
BATCH, LENGTH, VOCABULARY = 4, 32, 300


@pytest.fixture(scope="module")
def coca():
    text = bert_config(TextTowerSize(layers=3), TOWER.width, VOCABULARY, LENGTH)
    decoder = CaptionDecoderConfig(layers=2, heads=4)
    return CocaModel(CocaConfig(ecg=vars(TOWER), text=text, decoder=vars(decoder), latent_width=32))


@pytest.fixture
def llm():
    """With more key heads than it needs and a width of heads of its own: neither is the width of the model."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    )
    return LlamaForCausalLM(config).requires_grad_(False)


def counted(step):
    """FLOPs of a forward and backward pass, attention as two matrix products."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step().backward()
    return counter.get_total_flops()


def test_coca(coca):
    tokens = torch.randint(1, VOCABULARY, (BATCH, LENGTH))

    def step():
        output = coca(torch.randn(BATCH, 12, TOWER.samples), tokens)
        contrastive = contrastive_loss(output.ecg_latent, output.text_latent, output.logit_scale, torch.ones(BATCH), same, 0)
        return contrastive + caption_loss(output.caption_logits, tokens, 0)[0]

    assert CocaFlops(coca).step(torch.full((BATCH,), LENGTH)) == pytest.approx(counted(step), rel=0.02)


def same(tensor):
    return tensor


@pytest.mark.parametrize("adapters", [False, True])
def test_a_frozen_llm_with_and_without_adapters(coca, llm, adapters):
    reader = EcgReader.on_top_of(coca, ProjectorConfig(), 64)
    model = EcgChatModel(reader, with_adapters(llm, LoraSettings(rank=4)) if adapters else llm)
    places = torch.zeros(BATCH, 64, dtype=torch.bool)
    places[:, 2 : 2 + reader.config.tokens_per_ecg] = True
    tokens = torch.randint(1, VOCABULARY, places.shape)
    batch = ChatBatch(torch.randn(BATCH, 12, TOWER.samples), tokens, places, torch.ones_like(tokens), tokens)
    flops = ChatFlops(model, llm.config).step(BATCH, torch.full((BATCH,), 64))
    assert flops == pytest.approx(counted(lambda: model(batch)), rel=0.02)


def test_padding_counts_nothing(coca):
    flops = CocaFlops(coca)
    assert flops.step(torch.tensor([10, 20])) == flops.step(torch.tensor([10])) + flops.step(torch.tensor([20]))


@pytest.mark.parametrize(("trained", "gradient", "each"), [(True, True, 6), (False, True, 4), (False, False, 2)])
def test_what_a_weight_costs(trained, gradient, each):
    assert weight_flops(nn.Linear(8, 16).requires_grad_(trained), gradient) == each * 8 * 16


def test_experts_are_not_counted_wrongly(llm):
    assert ChatFlops.can_count(llm)
    llm.model.layers[0].mlp.experts = nn.Parameter(torch.zeros(4, 8, 8))
    assert not ChatFlops.can_count(llm)
