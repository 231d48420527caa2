"""Where a classifier reads its answer, and what it answers.

The lessons fill every message with ``<|endoftext|>`` up to one length and read the last position. The causal
mask lets the position behind a text see the whole text, so the filling after it adds work and no word.
A classifier of your own texts therefore reads that position: the first ``<|endoftext|>``, one token behind
the text. Then a batch needs filling up to its longest text only, a filled text gives the same logits as a
text alone, an empty text has an answer, and Transformers reads the same position by itself (``export.py``).

The ``reads`` of a classifier file says that it is one of these. Shapes use the letters of
``previous_chapters.py``; K is the number of classes, N of texts.
"""

import torch
import torch.nn as nn
from tqdm import tqdm

from classification import END_OF_TEXT, encode_message
from edition import PAD_TOKEN_ID, get_tokenizer
from fast_paths import block_at, count_frozen_blocks, logits_at, packed_for_inference


def encode_texts(texts, max_length):
    """The token IDs of each text with ``<|endoftext|>`` behind it, cut to ``max_length`` in all."""
    encoded = get_tokenizer().encode_ordinary_batch([clean(text) for text in texts], num_threads=1)
    return [ids[: max_length - 1] + [PAD_TOKEN_ID] for ids in encoded]


def clean(text):
    """Half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def filled(encoded, device):
    """A batch of encoded texts: token IDs (B, T), and the last position of each, (B,)."""
    longest = max(map(len, encoded))
    ids = [row + [PAD_TOKEN_ID] * (longest - len(row)) for row in encoded]
    return torch.tensor(ids, device=device), torch.tensor([len(row) - 1 for row in encoded], device=device)


def predict(probabilities, threshold):
    """The classes that probabilities (N, K) mean, (N,): of two, the second from the threshold on."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).astype(int)
    return probabilities.argmax(axis=1)


class EndOfTextClassifier(nn.Module):
    """A classifier that reads behind the text; its parameters are those of ``model``, no copies.

    Input: token IDs (B, T), or what the frozen blocks made of them, (B, T, C); the position to read, (B,).
    Output: logits (B, K). Equal to ``model(ids)[rows, end]``, but the frozen blocks keep nothing for
    gradients and the last block computes one position.
    """

    def __init__(self, model):
        super().__init__()
        self.model, self.num_frozen = model, count_frozen_blocks(model)

    def frozen_part(self, ids):
        """What enters the first block that trains: (B, T) -> (B, T, C)."""
        trains = any(parameter.requires_grad for parameter in self.model.tok_emb.parameters())
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            return self.model.trf_blocks[: self.num_frozen](self.model.embed(ids))

    def forward(self, x, end):
        if not x.is_floating_point():
            x = self.frozen_part(x)
        trained = self.model.trf_blocks[self.num_frozen :]
        if len(trained):
            x = block_at(trained[-1], trained[:-1](x), end)  # (B, 1, C)
        else:
            x = x[torch.arange(len(x), device=x.device), end].unsqueeze(1)
        return self.model.out_head(self.model.final_norm(x))[:, 0]  # (B, K)


def in_batches_by_length(encoded, batch_size=32):
    """Lists of indices of texts, the longest first: batches have little filling, and memory shows early."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


class Reader:
    """A loaded classifier, ready to answer: ``reader.logits(texts)``, ``reader.probabilities(texts)``.

    Args:
        model (GPTModel), settings (dict): what :func:`classification.load_classifier` returns.
        device (torch.device): where to compute.
    """

    def __init__(self, model, settings, device):
        self.max_length, self.device = settings["max_length"], device
        self.at_end = settings.get("reads") == END_OF_TEXT
        self.model = packed_for_inference(model.to(device))

    def encode(self, texts):
        if self.at_end:
            return encode_texts(texts, self.max_length)
        return [encode_message(clean(text), self.model, get_tokenizer(), self.max_length) for text in texts]

    @torch.no_grad()
    def logits(self, texts, description=None):
        """Logits of N texts: float32, (N, K), on the CPU. With a description there is a progress bar."""
        encoded = self.encode(texts)
        logits = torch.empty(len(encoded), self.model.out_head.out_features)
        batches = in_batches_by_length(encoded)
        disable = True if description is None else None  # None: not where it cannot be shown
        for indices in tqdm(batches, description, unit=" batches", leave=False, disable=disable):
            ids, last = filled([encoded[i] for i in indices], self.device)
            logits[indices] = logits_at(self.model, ids, last).float().cpu()
        return logits

    def probabilities(self, texts, description=None):
        """Probabilities of N texts: float32, (N, K)."""
        return torch.softmax(self.logits(texts, description), dim=-1)

    def num_tokens(self, text):
        """Number of tokens that a text needs, with that of its end where the classifier reads it."""
        return len(get_tokenizer().encode(clean(text), disallowed_special=())) + self.at_end
