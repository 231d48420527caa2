"""Fine-tune a classifier for texts of your own: any number of classes, best state kept.

What differs from the published training of ``classification.py``: the position that is read (``reading.py``),
batches that are filled to their own longest text, class weights in the loss, a learning rate that is chosen
on the validation set, and an end that the validation loss decides. The frozen blocks can read each text
once for all epochs (``cached``): their outputs are kept without filling.
"""

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from classification import add_classification_head, freeze_all_layers, load_pretrained_model
from edition import MODELS_DIR, WEIGHT_DECAY, find_model
from fast_paths import packed_for_inference
from own_data import class_weights
from reading import EndOfTextClassifier, encode_texts, filled, in_batches_by_length

LAYERS = ("head", "last-block", "last-two", "all")
LADDER = (0.3, 1.0, 3.0)  # times the rate of the model: what is tried where no rate is given
LADDER_STEPS = 300  # so long at most is each rate tried
BATCH_SIZE = 16
PATIENCE = 2  # epochs without a lower validation loss, then training ends


def build_own_classifier(name, num_classes, layers="last-block", seed=123, models_dir=MODELS_DIR):
    """A pretrained model with a new head of ``num_classes`` outputs; the layers of ``LAYERS`` train."""
    model = load_pretrained_model(name, models_dir)
    freeze_all_layers(model)
    add_classification_head(model, num_classes, seed)
    torch.nn.init.zeros_(model.out_head.bias)  # and so it stays: the head of Transformers has none
    blocks = {"head": 0, "last-block": 1, "last-two": 2, "all": len(model.trf_blocks)}[layers]
    if blocks:
        model.trf_blocks[-blocks:].requires_grad_(True)
        model.final_norm.requires_grad_(True)
    if layers == "all":
        model.requires_grad_(True)
    return model


def fine_tune(
    model, names, sets, max_length, rates, epochs=10, weighted=False, cached=False, seed=123, say=print
):
    """Train a classifier of :func:`build_own_classifier` on a table, as notebook 12 does; Ctrl-C ends it.

    Args:
        model (GPTModel): the classifier, on its device. It gets the best state.
        names (list of str): its classes.
        sets (dict): DataFrames ``"training"`` and ``"validation"`` with ``text`` and ``label``.
        max_length (int): tokens that are read of a text.
        rates (list of float): learning rates to choose from.
        weighted (bool): each class counts the same in the loss.
        cached (bool): the frozen blocks read each text once; it takes 4 x C bytes a token.

    Returns:
        tuple: what is known of the best state, see :class:`Training`; whether it was interrupted.
    """
    device, network = model.out_head.weight.device, EndOfTextClassifier(model)
    parts = {}
    for set_name in ("training", "validation"):
        labels = sets[set_name]["label"].map(names.index).tolist()
        parts[set_name] = Texts(encode_texts(sets[set_name]["text"], max_length), labels, device)
        if cached:
            parts[set_name].keep_frozen(network, f"Frozen blocks, {set_name} set")
    weights = None
    if weighted:
        weights = class_weights(parts["training"].labels.numpy(), len(names))
        weights = torch.tensor(weights, dtype=torch.float32, device=device)
    training = Training(network, **parts, weights=weights, seed=seed, say=say)
    interrupted = False
    try:
        training.run(rates, epochs)
    except KeyboardInterrupt:
        if training.num_steps == 0:
            raise
        interrupted = True
    training.restore()
    return training.best, interrupted


class Texts:
    """Encoded texts with their classes, as batches for :class:`EndOfTextClassifier`.

    Args:
        encoded (list of list of int): token IDs, from :func:`reading.encode_texts`.
        labels (list of int): the classes.
        device (torch.device): where the batches go.

    With :meth:`keep_frozen`, a batch holds what the frozen blocks made of the texts in place of token IDs.
    """

    def __init__(self, encoded, labels, device):
        self.encoded, self.labels, self.device = encoded, torch.tensor(labels), device
        self.states = None

    def __len__(self):
        return len(self.encoded)

    def keep_frozen(self, network, description):
        """Let the frozen blocks read each text once. It takes 4 x C bytes a token, without filling."""
        frozen = packed_for_inference(network.model.trf_blocks[: network.num_frozen])
        self.states = [None] * len(self)
        batches = in_batches_by_length(self.encoded)
        with torch.no_grad():
            for indices in tqdm(batches, desc=description, unit=" batches", leave=False, disable=None):
                ids, end = filled([self.encoded[i] for i in indices], self.device)
                x = frozen(network.model.embed(ids))
                for i, row, last in zip(indices, x, end.tolist()):
                    first = last if network.num_frozen == len(network.model.trf_blocks) else 0
                    self.states[i] = row[first : last + 1].clone()  # a head alone needs the one position

    def batch(self, indices):
        """Input of the network, position to read, classes."""
        labels = self.labels[indices].to(self.device)
        if self.states is None:
            return *filled([self.encoded[i] for i in indices], self.device), labels
        states = [self.states[i] for i in indices]
        end = torch.tensor([len(state) - 1 for state in states], device=self.device)
        return pad_sequence(states, batch_first=True), end, labels

    def shuffled(self, generator):
        order = torch.randperm(len(self), generator=generator).tolist()
        return [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]


@torch.no_grad()
def loss_and_accuracy(network, texts, weights=None):
    """Mean loss, with the weights of the classes, and accuracy of a network on texts."""
    network.eval()
    total = norm = right = 0.0
    for indices in in_batches_by_length(texts.encoded, 64):
        x, end, labels = texts.batch(indices)
        logits = network(x, end)
        total += F.cross_entropy(logits, labels, weights, reduction="sum").item()
        norm += len(labels) if weights is None else weights[labels].sum().item()
        right += (logits.argmax(dim=-1) == labels).sum().item()
    return total / norm, right / len(texts)


class Training:
    """A training that can be interrupted: :meth:`run` it, then :meth:`restore` its best state.

    Args:
        network (EndOfTextClassifier): what trains.
        training, validation (Texts): what it learns from, and what decides about rate and end.
        weights (torch.Tensor): of the classes in the loss, (K,), or None.
        say (callable): told of each step of the way.

    Attributes: ``best``, a dict of what is known of the best state: ``loss``, ``accuracy``, ``epoch``,
    ``learning_rate``; empty before the first measurement. ``num_steps``, of all attempts.
    """

    def __init__(self, network, training, validation, weights=None, seed=123, say=print):
        self.network, self.training, self.validation = network, training, validation
        self.weights, self.seed, self.say = weights, seed, say
        self.best, self.state, self.num_steps = {}, None, 0
        self.start = self.trained_values()

    def trained_values(self):
        named = self.network.model.named_parameters()
        return {name: value.detach().clone() for name, value in named if value.requires_grad}

    def set_values(self, values):
        self.network.model.load_state_dict(values, strict=False)

    def restore(self):
        """Give the network the best state; without one, it stays as it is now."""
        if self.state is not None:
            self.set_values(self.state)

    def run(self, rates, epochs=10):
        """Train with the one learning rate, or try several for a short time and train with the best.

        Raises:
            KeyboardInterrupt: at any time; ``best`` and :meth:`restore` hold what there was.
            ValueError: if no state has a finite loss.
        """
        rate = rates[0]
        if len(rates) > 1:
            for candidate in rates:
                loss = self.climb(candidate, epochs, most_steps=LADDER_STEPS)
                self.say(f"Learning rate {candidate:.1e}: validation loss {loss:.3f}")
            rate = self.best.get("learning_rate", rate)
            self.say(f"The best of {len(rates)} learning rates: {rate:.1e}")
        self.climb(rate, epochs)
        if not self.best:
            raise ValueError("The loss is no finite number. Try a lower --learning-rate.")

    def climb(self, rate, epochs, most_steps=None):
        """Train from the start; remember the best state; returns the lowest validation loss."""
        self.set_values(self.start)
        generator = torch.Generator().manual_seed(self.seed)
        torch.manual_seed(self.seed)
        named = self.network.named_parameters()
        parameters = [p for name, p in named if p.requires_grad and name != "model.out_head.bias"]
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=WEIGHT_DECAY, fused=True)
        lowest, since, steps = float("inf"), 0, 0
        for epoch in range(1, epochs + 1):
            batches = self.training.shuffled(generator)
            if most_steps is not None:
                batches = batches[: most_steps - steps]
            self.train_on(batches, optimizer, f"Epoch {epoch}" if most_steps is None else f"Rate {rate:.1e}")
            steps += len(batches)
            loss, accuracy = loss_and_accuracy(self.network, self.validation, self.weights)
            if most_steps is None:
                self.say(f"Epoch {epoch}: validation loss {loss:.3f}, accuracy {accuracy:.1%}")
            since = 0 if loss < lowest else since + 1
            lowest = min(loss, lowest)
            if loss < self.best.get("loss", float("inf")):
                self.best = {"loss": loss, "accuracy": accuracy, "epoch": epoch, "learning_rate": rate}
                self.state = self.trained_values()
            if since == PATIENCE or steps == most_steps:
                break
        return lowest

    def train_on(self, batches, optimizer, description):
        self.network.train()
        for indices in tqdm(batches, desc=description, unit=" batches", leave=False, disable=None):
            x, end, labels = self.training.batch(indices)
            optimizer.zero_grad()
            F.cross_entropy(self.network(x, end), labels, self.weights).backward()
            optimizer.step()
            self.num_steps += 1


def ladder(name, layers):
    """The learning rates to try: around that of the model, higher for a head alone, lower for all layers."""
    middle = find_model(name).learning_rate * {"head": 3.0, "all": 0.3}.get(layers, 1.0)
    return [middle * factor for factor in LADDER]
