"""Greedy transcripts of a batch: rows end when they end, and do not change one another."""

import pytest
import torch

from trainer.model.greedy import transcribe
from trainer.model.student import load_teacher

pytestmark = pytest.mark.usefixtures("short_texts")


def test_rows_of_a_batch_are_transcribed_as_alone(teacher, vocabulary):
    decoder = load_teacher(teacher).model.decoder
    torch.manual_seed(0)
    encoded = torch.randn(5, 1500, 32) * torch.tensor([0.1, 3.0, 10.0, 30.0, 100.0])[:, None, None]
    together = transcribe(decoder, encoded, language="zh-en", vocabulary=vocabulary)
    alone = [transcribe(decoder, row[None], language="zh-en", vocabulary=vocabulary)[0] for row in encoded]
    assert together == alone
    assert len(set(together)) > 1


def test_a_row_that_ends_at_once_leaves_the_others_in_the_batch(teacher, vocabulary):
    """The end is made likely for one row only, by what its encoder says."""
    decoder = load_teacher(teacher).model.decoder
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
    texts = transcribe(decoder, encoded, language="zh", vocabulary=vocabulary)
    assert len(vocabulary.encode(texts[1])) <= 1  # the first token may not be the end
    assert len(vocabulary.encode(texts[0])) > 1
    assert [texts[0], texts[2]] == transcribe(decoder, encoded[[0, 2]], language="zh", vocabulary=vocabulary)
