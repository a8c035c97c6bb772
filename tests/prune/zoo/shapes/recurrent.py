"""Recurrent layers: their hidden units, and what they read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats, pooled, tokens


def recurrent(layer: Any, groups: dict[str, int], reads: int = 10) -> Entry:
    """A linear layer, a recurrent one, and a head that reads all of its outputs."""
    return Entry(
        lambda: Net(
            lambda n, x: n.head(n.rnn(n.a(x).relu())[0]),
            a=nn.Linear(6, 12),
            rnn=layer(),
            head=nn.Linear(reads, 3),
        ),
        floats(5, 6),
        groups,
    )


def last_state(net: Net, x: Tensor) -> Tensor:
    _, (hidden, _) = net.rnn(net.embed(x))
    return net.head(hidden[-1])


def captioned(net: Net, x: Tensor) -> Tensor:
    maps = net.a(x).relu()
    out, _ = net.rnn(maps.flatten(2).transpose(1, 2))
    return net.head(out.mean(1))


def cells(net: Net, x: Tensor) -> Tensor:
    hidden = x.new_zeros(len(x), net.cell.hidden_size)
    cell = hidden
    for step in net.a(x).relu().unbind(1):
        hidden, cell = net.cell(step, (hidden, cell))
    return net.head(hidden)


def gated_cells(net: Net, x: Tensor) -> Tensor:
    hidden = net.start(x[:, 0])
    for step in net.a(x).relu().unbind(1):
        hidden = net.cell(step, hidden)
    return net.head(hidden)


def own_cell(net: Net, x: Tensor) -> Tensor:
    hidden = x.new_zeros(len(x), net.keeps.in_features)
    for step in x.unbind(1):
        hidden = torch.tanh(net.reads(step) + net.keeps(hidden))
    return net.head(hidden)


def sequence(net: Net, x: Tensor) -> Tensor:
    _, state = net.encoder(net.a(x))
    out, _ = net.decoder(net.b(x), state)
    return net.head(out)


def conv_gru(net: Net, x: Tensor) -> Tensor:
    hidden = net.start(x).tanh()
    for _ in range(2):
        both = torch.cat([hidden, x], 1)
        update = net.update(both).sigmoid()
        hidden = (1 - update) * hidden + update * net.value(both).tanh()
    return net.head(pooled(hidden))


RECURRENT = {
    "rnn": recurrent(lambda: nn.RNN(12, 10, batch_first=True), {"a": 12, "rnn": 10}),
    "gru": recurrent(lambda: nn.GRU(12, 10, batch_first=True), {"a": 12, "rnn": 10}),
    "lstm": recurrent(lambda: nn.LSTM(12, 10, batch_first=True), {"a": 12, "rnn": 10}),
    "lstm_time_first": recurrent(lambda: nn.LSTM(12, 10), {"a": 12, "rnn": 10}),
    "lstm_without_bias": recurrent(
        lambda: nn.LSTM(12, 10, bias=False, batch_first=True), {"a": 12, "rnn": 10}
    ),
    "lstm_two_layers": recurrent(
        lambda: nn.LSTM(12, 10, 2, batch_first=True), {"a": 12, "rnn": 10}
    ),
    "gru_bidirectional": recurrent(
        lambda: nn.GRU(12, 10, batch_first=True, bidirectional=True), {"a": 12, "rnn": 10}, 20
    ),
    "lstm_two_layers_bidirectional": recurrent(
        lambda: nn.LSTM(12, 10, 2, batch_first=True, bidirectional=True),
        {"a": 12, "rnn": 10},
        20,
    ),
    "lstm_with_projection": recurrent(
        lambda: nn.LSTM(12, 10, proj_size=4, batch_first=True), {"a": 12}, 4
    ),
    "lstm_of_tokens": Entry(
        lambda: Net(
            last_state,
            embed=nn.Embedding(20, 12),
            rnn=nn.LSTM(12, 10, batch_first=True),
            head=nn.Linear(10, 3),
        ),
        tokens(5),
        {"embed": 12, "rnn": 10},
    ),
    "convolution_and_gru": Entry(
        lambda: Net(
            captioned,
            a=nn.Conv2d(3, 12, 3),
            rnn=nn.GRU(12, 10, batch_first=True),
            head=nn.Linear(10, 3),
        ),
        floats(3, 5, 5),
        {"a": 12, "rnn": 10},
    ),
    "lstm_cell": Entry(
        lambda: Net(cells, a=nn.Linear(6, 12), cell=nn.LSTMCell(12, 10), head=nn.Linear(10, 3)),
        floats(4, 6),
        {"a": 12, "cell": 10},
    ),
    "gru_cell": Entry(
        lambda: Net(
            gated_cells,
            a=nn.Linear(6, 12),
            start=nn.Linear(6, 10),
            cell=nn.GRUCell(12, 10),
            head=nn.Linear(10, 3),
        ),
        floats(4, 6),
        {"a": 12, "start": 10, "cell": 10},
    ),
    "own_cell": Entry(
        lambda: Net(
            own_cell, reads=nn.Linear(6, 10), keeps=nn.Linear(10, 10), head=nn.Linear(10, 3)
        ),
        floats(4, 6),
        {"reads": 10, "keeps": 10},
    ),
    # The state of the encoder is the start of the decoder: both have the same units.
    "encoder_and_decoder": Entry(
        lambda: Net(
            sequence,
            a=nn.Linear(6, 12),
            b=nn.Linear(6, 8),
            encoder=nn.GRU(12, 10, batch_first=True),
            decoder=nn.GRU(8, 10, batch_first=True),
            head=nn.Linear(10, 3),
        ),
        floats(4, 6),
        {"a": 12, "b": 8, "encoder": 10, "decoder": 10},
    ),
    "convolutional_gru": Entry(
        lambda: Net(
            conv_gru,
            start=nn.Conv2d(3, 10, 3, padding=1),
            update=nn.Conv2d(13, 10, 3, padding=1),
            value=nn.Conv2d(13, 10, 3, padding=1),
            head=nn.Linear(10, 3),
        ),
        floats(3, 6, 6),
        {"start": 10, "update": 10, "value": 10},
    ),
}
