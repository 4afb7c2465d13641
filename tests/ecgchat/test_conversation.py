"""From turns to tokens: labels where the assistant speaks and nowhere else, places for ECGs, and padding."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from ecgchat.conversation import PLAIN_TEMPLATE, collate, exchanges, load_chat_tokenizer, tokenise
from ecgchat.errors import ModelError
from ecgchat.models.ecg_chat import IGNORE
from ecgchat.small_llm import train_chat_tokenizer

LONG = 10_000

ASKED = [
    {"from": "human", "value": "<ecg>\nWhich rhythm?"},
    {"from": "gpt", "value": "Sinus rhythm."},
    {"from": "human", "value": "And the axis?"},
    {"from": "gpt", "value": "Normal: 60°."},
]


def spell(template=PLAIN_TEMPLATE, specials=("<pad>", "<s>", "</s>"), **named):
    """A tokenizer with a token for every byte, and one for every special word, so that each place can be written down."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    named = {"pad_token": specials[0], "bos_token": specials[1], "eos_token": specials[2]} | named
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=list(specials), **named)
    tokenizer.chat_template = template
    return tokenizer


@dataclass(frozen=True)
class Published:
    """A chat template in the form of a published model's, and what it makes of `ASKED`."""

    template: str
    specials: tuple[str, ...]
    """To pad with, to begin with, to end with, and others."""
    said: list[tuple[str, bool]]
    """Pieces of the text, and whether the assistant says them; an ECG stands between the first two."""


PUBLISHED = {
    "plain": Published(
        PLAIN_TEMPLATE,
        ("<pad>", "<s>", "</s>"),
        [
            ("USER: ", False),
            ("\nWhich rhythm? ASSISTANT:", False),
            (" Sinus rhythm.</s>", True),
            ("USER: And the axis? ASSISTANT:", False),
            (" Normal: 60°.</s>", True),
        ],
    ),
    "llama-3": Published(
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ("<|finetune_right_pad_id|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        [
            ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", False),
            ("\nWhich rhythm?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", False),
            ("Sinus rhythm.<|eot_id|>", True),
            ("<|start_header_id|>user<|end_header_id|>\n\nAnd the axis?<|eot_id|>", False),
            ("<|start_header_id|>assistant<|end_header_id|>\n\n", False),
            ("Normal: 60°.<|eot_id|>", True),
        ],
    ),
    "mistral": Published(
        "{{ bos_token }}{% for message in messages %}"
        "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}",
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        [
            ("<s>[INST] ", False),
            ("\nWhich rhythm? [/INST]", False),
            (" Sinus rhythm.</s>", True),
            ("[INST] And the axis? [/INST]", False),
            (" Normal: 60°.</s>", True),
        ],
    ),
    "qwen (ChatML)": Published(
        "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        [
            ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n", False),
            ("\nWhich rhythm?<|im_end|>\n<|im_start|>assistant\n", False),
            ("Sinus rhythm.<|im_end|>\n", True),
            ("<|im_start|>user\nAnd the axis?<|im_end|>\n<|im_start|>assistant\n", False),
            ("Normal: 60°.<|im_end|>\n", True),
        ],
    ),
    "gemma": Published(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}{% set role = 'model' if message.role == 'assistant' else message.role %}"
        "{{ '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        ("<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        [
            ("<bos><start_of_turn>user\n", False),
            ("\nWhich rhythm?<end_of_turn>\n<start_of_turn>model\n", False),
            ("Sinus rhythm.<end_of_turn>\n", True),
            ("<start_of_turn>user\nAnd the axis?<end_of_turn>\n<start_of_turn>model\n", False),
            ("Normal: 60°.<end_of_turn>\n", True),
        ],
    ),
}


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_labels_are_what_the_assistant_says_and_where_its_turn_ends_token_by_token(name):
    published = PUBLISHED[name]
    tokenizer = spell(published.template, published.specials)
    pieces = [(ids(tokenizer, text), said) for text, said in published.said]
    ecg = [tokenizer.pad_token_id] * 3
    expected = [(token, False, IGNORE) for token in pieces[0][0]] + [(token, True, IGNORE) for token in ecg]
    expected += [(token, False, token if said else IGNORE) for tokens, said in pieces[1:] for token in tokens]

    found = tokenise(tokenizer, ASKED, 3, LONG)
    assert list(zip(found.tokens, found.ecg_places, found.labels, strict=True)) == expected
    assert (found.ecgs, found.cut) == (1, False)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_question_alone_ends_where_the_assistant_is_to_speak(name):
    """What is generated from is, token for token, what stood before the answer in training."""
    published = PUBLISHED[name]
    tokenizer = spell(published.template, published.specials)
    whole, asked = tokenise(tokenizer, ASKED, 3, LONG), tokenise(tokenizer, ASKED[:3], 3, LONG)
    answered = [label != IGNORE for label in whole.labels]
    second_answer = len(answered) - answered[::-1].index(False)
    assert asked.tokens == whole.tokens[:second_answer]
    # The first answer is there to be read, and to be learnt from too.
    assert asked.labels == whole.labels[:second_answer]
    assert set(tokenise(tokenizer, ASKED[:1], 3, LONG).labels) == {IGNORE}


def test_a_word_that_is_one_token_with_the_blank_before_it_is_labelled_whole():
    tokenizer = train_chat_tokenizer(["Which rhythm? ASSISTANT: Sinus rhythm. No rhythm. Sinus rhythm."] * 9, 400)
    found = tokenise(tokenizer, ASKED[:2], 1, LONG)
    spoken = [token for token, label in zip(found.tokens, found.labels, strict=True) if label != IGNORE]
    assert tokenizer.convert_ids_to_tokens(spoken) == ["ĠSinus", "Ġrhythm", ".", "</s>"]


def test_nothing_that_a_system_turn_says_is_labelled():
    for name in ("plain", "llama-3", "qwen (ChatML)"):
        tokenizer = spell(PUBLISHED[name].template, PUBLISHED[name].specials)
        found = tokenise(tokenizer, [{"from": "system", "value": "Be brief."}, *ASKED], 3, LONG)
        told = "".join(tokenizer.convert_ids_to_tokens(found.tokens))
        assert "brief" in told, name
        said = tokenizer.decode([label for label in found.labels if label != IGNORE], skip_special_tokens=True)
        assert "".join(said.split()) == "Sinusrhythm.Normal:60°."


def test_each_ecg_has_its_places_where_its_mark_stands_and_a_conversation_without_one_has_none():
    tokenizer = spell()
    turns = [
        {"from": "human", "value": "Old: <ecg> new: <ecg>"},
        {"from": "gpt", "value": "Alike."},
        {"from": "human", "value": "And <ecg>?"},
        {"from": "gpt", "value": "Other."},
    ]
    found = tokenise(tokenizer, turns, 2, LONG)
    ecg, text = [True] * 2, lambda words: [False] * len(words)
    expected = text("USER: Old: ") + ecg + text(" new: ") + ecg + text(" ASSISTANT: Alike.") + [False]
    expected += text("USER: And ") + ecg + text("? ASSISTANT: Other.") + [False]
    assert found.ecg_places == expected
    assert found.ecgs == 3

    only_text = tokenise(tokenizer, [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "Yes."}], 2, LONG)
    assert only_text.ecgs == 0
    assert not any(only_text.ecg_places)
    assert tokenizer.decode(only_text.tokens) == "USER: Hm? ASSISTANT: Yes.</s>"


def conversations():
    """Turns in which any number of ECGs may stand anywhere, in letters of one to four bytes."""
    piece = st.text("aé心🫀 \n", max_size=6)
    value = st.lists(piece, min_size=1, max_size=4).map("<ecg>".join)
    return st.lists(value, min_size=1, max_size=5).map(
        lambda values: [{"from": ("human", "gpt")[turn % 2], "value": text} for turn, text in enumerate(values)]
    )


TOKENIZER = spell()


@settings(max_examples=200, deadline=None)
@given(conversations(), st.integers(1, 5), st.integers(1, 120))
def test_what_is_cut_is_the_end_and_never_goes_through_an_ecg(turns, tokens_per_ecg, context):
    whole = tokenise(TOKENIZER, turns, tokens_per_ecg, LONG)
    found = tokenise(TOKENIZER, turns, tokens_per_ecg, context)
    length = len(found.tokens)
    assert length <= context
    assert found.cut == (len(whole.tokens) > context)
    for name in ("tokens", "ecg_places", "labels"):
        assert getattr(found, name) == getattr(whole, name)[:length]
    assert sum(found.ecg_places) == found.ecgs * tokens_per_ecg
    # Nothing is left out that would have fitted: what comes next is an ECG that does not.
    if found.cut and length < context:
        assert all(whole.ecg_places[length : length + tokens_per_ecg])
        assert length + tokens_per_ecg > context


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_padded_on_the_side_that_is_asked_for(side):
    tokenizer = spell()
    long = tokenise(tokenizer, ASKED, 3, LONG)
    short = tokenise(tokenizer, [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "Yes."}], 3, LONG)
    batch = collate([long, short], torch.zeros(1, 12, 10), 7, side)
    width, length = len(long.tokens), len(short.tokens)
    there = slice(width - length, width) if side == "left" else slice(0, length)
    absent = slice(0, width - length) if side == "left" else slice(length, width)
    for tensor, name, filler in (
        (batch.tokens, "tokens", 7),
        (batch.ecg_places, "ecg_places", False),
        (batch.labels, "labels", IGNORE),
    ):
        assert tensor[0].tolist() == getattr(long, name)
        assert tensor[1, there].tolist() == getattr(short, name)
        assert set(tensor[1, absent].tolist()) == {filler}
    assert batch.attention_mask[0].all()
    assert batch.attention_mask[1, there].all()
    assert not batch.attention_mask[1, absent].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_where_a_rank_has_no_conversation_one_token_is_attended_and_none_learnt(side):
    """Attention to nothing would be no number."""
    tokenizer = spell()
    nothing = tokenise(tokenizer, ASKED, 3, 0)
    assert nothing.tokens == []
    for conversations in ([nothing], [nothing, tokenise(tokenizer, ASKED, 3, LONG)]):
        batch = collate(conversations, torch.zeros(1, 12, 10), 0, side)
        assert batch.attention_mask[0].sum() == 1
        assert (batch.labels[0] == IGNORE).all()
        assert not batch.ecg_places[0].any()


def test_a_template_that_rewrites_what_was_said_is_refused_with_the_turn():
    """As templates do that keep the last turn's thoughts and drop the earlier ones'."""
    thinking = PLAIN_TEMPLATE.replace(
        "'ASSISTANT: ' + message.content", "'ASSISTANT: ' + ('<think></think>' if loop.last else '') + message.content"
    )
    with pytest.raises(ModelError, match=r"sample-7: the chat template of .* writes turn 2 otherwise once it is answered"):
        tokenise(spell(thinking), ASKED, 3, LONG, "sample-7")


def test_what_a_template_itself_refuses_is_one_sentence_with_the_sample():
    gemma, mistral = PUBLISHED["gemma"], PUBLISHED["mistral"]
    with pytest.raises(ModelError, match=r"sample-7: the chat template of .* refuses its turns .System role not supported"):
        tokenise(spell(gemma.template, gemma.specials), [{"from": "system", "value": "Hm"}, *ASKED], 3, LONG, "sample-7")
    with pytest.raises(ModelError, match=r"sample-7: the chat template of .* .roles must alternate"):
        tokenise(spell(mistral.template, mistral.specials), [ASKED[0], *ASKED], 3, LONG, "sample-7")


def test_a_conversation_is_made_of_exchanges():
    assert exchanges([{"from": "system", "value": "Be brief."}, *ASKED]) == [
        ("<ecg>\nWhich rhythm?", "Sinus rhythm."),
        ("And the axis?", "Normal: 60°."),
    ]


# --- the tokenizer of an LLM's folder


def saved(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_tokenizer_without_a_template_gets_the_plain_one_and_another_keeps_its_own(tmp_path):
    assert load_chat_tokenizer(saved(spell(template=None), tmp_path / "none")).chat_template == PLAIN_TEMPLATE
    own = PUBLISHED["gemma"]
    loaded = load_chat_tokenizer(saved(spell(own.template, own.specials), tmp_path / "gemma"))
    assert loaded.chat_template == own.template


def test_a_tokenizer_without_a_pad_token_is_refused_until_one_of_its_tokens_is_named(tmp_path):
    folder = saved(spell(pad_token=None), tmp_path)
    with pytest.raises(ModelError, match=r"no pad token; name one of its tokens with --pad_token, such as '</s>'"):
        load_chat_tokenizer(folder)
    tokenizer = load_chat_tokenizer(folder, "<pad>")
    assert tokenizer.pad_token_id == tokenizer.get_vocab()["<pad>"]
    with pytest.raises(ModelError, match=r"pad_token '<nothing>': .* has no such token"):
        load_chat_tokenizer(folder, "<nothing>")


def test_a_tokenizer_that_cannot_tell_where_a_token_begins_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"does not tell where a token begins; convert it to a fast one"):
        load_chat_tokenizer(saved(ByT5Tokenizer(), tmp_path))
