"""Greedy transcripts of a batch: rows end when they end, and do not change one another."""

import pytest
import torch
from tiny import tiny_teacher

from k2d.whisper.vocabulary import Vocabulary
from trainer.model.greedy import transcribe
from trainer.model.student import load_teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_teacher(tmp_path_factory.mktemp("teacher"))


def test_rows_of_a_batch_say_what_they_say_alone(folder):
    vocabulary = Vocabulary(folder / "tokenizer.json")
    decoder = load_teacher(folder).model.decoder
    torch.manual_seed(0)
    encoded = torch.randn(5, 1500, 32) * torch.tensor([0.1, 3.0, 10.0, 30.0, 100.0])[:, None, None]
    together = transcribe(decoder, encoded, language="zh-en", vocabulary=vocabulary)
    alone = [transcribe(decoder, row[None], language="zh-en", vocabulary=vocabulary)[0] for row in encoded]
    assert together == alone
    assert len(set(together)) > 1


def test_a_row_that_ends_at_once_leaves_the_others_in_the_batch(folder):
    """The end is made likely for one row only, by what its encoder says."""
    vocabulary = Vocabulary(folder / "tokenizer.json")
    decoder = load_teacher(folder).model.decoder
    torch.manual_seed(0)
    with torch.no_grad():
        decoder.embed_tokens.weight[vocabulary.eot] = torch.randn(32) * 5.0

    def ends_for_loud_rows(module, given, hidden):
        loud = given["encoder_hidden_states"].abs().amax(dim=(1, 2)) > 50.0
        state = hidden.last_hidden_state
        state[loud] = 1000.0 * module.embed_tokens.weight[vocabulary.eot].detach()
        return hidden

    decoder.register_forward_hook(lambda m, _, given, out: ends_for_loud_rows(m, given, out), with_kwargs=True)
    encoded = torch.randn(3, 1500, 32)
    encoded[1] *= 100.0
    found = transcribe(decoder, encoded, language="zh", vocabulary=vocabulary)
    assert len(vocabulary.encode(found[1])) <= 1  # the first token may not be the end
    assert len(vocabulary.encode(found[0])) > 1
    assert [found[0], found[2]] == transcribe(decoder, encoded[[0, 2]], language="zh", vocabulary=vocabulary)
