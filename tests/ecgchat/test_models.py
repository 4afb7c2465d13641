"""The towers and the decoder: parity with the published code, causality, and losses against the naive ones."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ecgchat.losses import caption_loss, contrastive_loss
from ecgchat.models.coca import CocaConfig, CocaModel, TextTowerSize, bert_config
from ecgchat.models.ecg_tower import EcgTower, EcgTowerConfig
from ecgchat.models.signal import counts_to_millivolts
from shards.record import INVALID

VOCABULARY = 60


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    ecg = EcgTowerConfig(sampling_rate_hz=100, duration_s=10, patch_samples=50, width=32, layers=2, heads=4)
    text = bert_config(TextTowerSize(layers=2, heads=4), 32, VOCABULARY, 24)
    return CocaModel(CocaConfig(ecg=asdict(ecg), text=text, decoder={"layers": 2, "heads": 4}, latent_width=16)).eval()


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, VOCABULARY, (6, 12), generator=generator)
    tokens[:, 9:] = 0
    return torch.randn(6, 12, 1000, generator=generator), tokens


def test_the_ecg_tower_reproduces_the_published_codes_outputs(fixtures_folder):
    """Weights and outputs of ECG-Chat's own code, mapped tensor by tensor."""
    folder = fixtures_folder / "ecg_coca"
    published = json.loads((folder / "model_config.json").read_text())
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module.ecg."): value for name, value in state.items() if name.startswith("module.ecg.")}
    size = published["ecg_cfg"]
    config = EcgTowerConfig(
        sampling_rate_hz=500,
        duration_s=size["seq_length"] / 500,
        patch_samples=size["patch_size"],
        width=size["width"],
        layers=size["layers"],
        heads=size["width"] // size["head_width"],
    )
    tower = EcgTower(config, published["embed_dim"]).eval()
    tower.load_state_dict(rename(weights, size["layers"]))
    expected = np.load(folder / "expected.npz")
    with torch.no_grad():
        output = tower(torch.from_numpy(expected["ecg"]))
    np.testing.assert_allclose(F.normalize(output.latent, dim=-1), expected["ecg_latent"], atol=1e-5)
    np.testing.assert_allclose(output.patch_tokens_after_norm, expected["ecg_tokens"], atol=1e-5)


def test_the_two_kinds_of_tokens_are_what_their_names_say(model, batch):
    output = model.ecg(batch[0])
    assert output.all_tokens_before_norm.shape == (6, 21, 32)
    assert output.patch_tokens_after_norm.shape == (6, 20, 32)
    normed = model.ecg.norm_last(output.all_tokens_before_norm)
    assert torch.equal(normed[:, 1:], output.patch_tokens_after_norm)


def test_the_decoder_never_sees_the_token_that_it_predicts(model, batch):
    millivolts, tokens = batch
    changed = tokens.clone()
    changed[:, 5:] = 7
    before, after = (model(millivolts, ids).caption_logits for ids in (tokens, changed))
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5], after[:, 5], atol=1e-3)


def test_the_decoder_reads_the_ecg(model, batch):
    millivolts, tokens = batch
    assert not torch.allclose(model(millivolts, tokens).caption_logits, model(-millivolts, tokens).caption_logits, atol=1e-3)


def test_padding_changes_no_text_latent(model, batch):
    tokens = batch[1]
    longer = F.pad(tokens, (0, 4))
    assert torch.allclose(model.encode_text(tokens), model.encode_text(longer), atol=1e-5)


def test_a_row_of_padding_alone_is_no_nan(model, batch):
    output = model(batch[0][:1], torch.zeros(1, 8, dtype=torch.long))
    assert torch.isfinite(output.text_latent).all()
    assert torch.isfinite(output.caption_logits).all()


def test_an_export_is_the_same_model(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    again = CocaModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again(*batch).caption_logits, model(*batch).caption_logits)


def test_contrastive_loss_is_clips_where_nothing_is_padded(model, batch):
    output = model(*batch)
    logits = output.logit_scale * output.ecg_latent @ output.text_latent.T
    own = torch.arange(6)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    total = contrastive_loss(output.ecg_latent, output.text_latent, output.logit_scale, torch.ones(6), lambda x: x, 0)
    assert torch.allclose(total / 6, expected, atol=1e-5)


def test_padded_pairs_neither_count_nor_serve_as_negatives(model, batch):
    output = model(*batch)
    weight = torch.tensor([1.0, 1, 1, 1, 0, 0])
    padded = contrastive_loss(output.ecg_latent, output.text_latent, output.logit_scale, weight, lambda x: x, 0)
    real = contrastive_loss(output.ecg_latent[:4], output.text_latent[:4], output.logit_scale, torch.ones(4), lambda x: x, 0)
    assert torch.allclose(padded, real, atol=1e-5)
    padded.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_caption_loss_is_over_the_real_tokens(model, batch):
    output = model(*batch)
    total, count = caption_loss(output.caption_logits, batch[1], 0)
    assert count == 6 * 8
    expected = F.cross_entropy(output.caption_logits[:, :8].flatten(0, 1), batch[1][:, 1:9].flatten())
    assert torch.allclose(total / count, expected, atol=1e-5)


def test_counts_become_millivolts_and_invalid_samples_zero():
    ecg = torch.zeros(1, 12, 3, dtype=torch.int16)
    ecg[0, 1] = torch.tensor([1000, -500, INVALID])
    scale = torch.full((1, 12), 0.001)
    assert counts_to_millivolts(ecg, scale)[0, 1].tolist() == pytest.approx([1, -0.5, 0])


def test_a_patch_that_does_not_divide_the_length_is_refused():
    with pytest.raises(ValueError, match="patch_samples 49 does not divide the 5000 samples"):
        EcgTowerConfig(patch_samples=49)


def test_unequal_widths_are_refused():
    text = bert_config(TextTowerSize(layers=1, heads=4), 64, VOCABULARY, 24)
    ecg = asdict(EcgTowerConfig(width=32, heads=4, layers=1))
    with pytest.raises(ValueError, match=r"model.text width 64 differs from model.ecg.width 32"):
        CocaModel(CocaConfig(ecg=ecg, text=text))


def rename(weights, layers):
    """OpenCLIP's names → ours; its joint projection of query, key and value is split in two."""
    width = len(weights["class_embedding"])
    renamed = {
        "class_token": weights["class_embedding"],
        "positions": weights["positional_embedding"],
        "patch.weight": weights["conv1.weight"],
        "projection.weight": weights["proj"].T,
    }
    for ours, theirs in (("norm_first", "ln_pre"), ("norm_last", "ln_post")):
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    names = {
        "norm_attention": "ln_1",
        "norm_mlp": "ln_2",
        "attention.out": "attn.out_proj",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    for layer in range(layers):
        theirs = f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            for ours, name in names.items():
                renamed[f"blocks.{layer}.{ours}.{kind}"] = weights[f"{theirs}.{name}.{kind}"]
            joint = weights[f"{theirs}.attn.in_proj_{kind}"]
            renamed[f"blocks.{layer}.attention.query.{kind}"] = joint[:width]
            renamed[f"blocks.{layer}.attention.key_value.{kind}"] = joint[width:]
    return renamed
