"""Rows: sequences side by side (training), or as branches of trees that hold shared prefixes once (evaluation).

Training fills rows in the order that decides what an optimizer step sees, and shares prefixes within a micro-batch
(batches.py). Evaluation may reorder: sequences with a common prefix (the options of one prompt, prompts of one
template) become branches of one tree. Each token attends to its ancestors and itself, and its position is its depth,
so the result is that of separate rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hiplora.packing.sequences import Encoded, common_prefix

OPEN_ROWS = 32  # rows that still take examples while packing; more of them fill rows better but shuffle less
ROW_TOKENS = 256  # length limit of a row of trees; longer rows share more prefixes but cost more attention


@dataclass(frozen=True)
class Line:
    """The sequences packed into one row, in order, and the number of positions they take."""

    examples: tuple[Encoded, ...]
    inputs: int

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens, without padding."""
        return sum(example.tokens for example in self.examples)


def first_fit(encoded: Sequence[Encoded], *, row_tokens: int, order: Sequence[int]) -> list[Line]:
    """Rows of at most ``row_tokens`` positions, by first-fit packing in the given order.

    Only the last ``OPEN_ROWS`` rows take sequences, so that a row holds neighbours of the order and the result
    is nearly as shuffled as the order is.

    Raises:
        ValueError: a sequence is longer than a row.
    """
    rows: list[list[Encoded]] = []
    room: list[int] = []
    first_open = 0
    for index in order:
        example, needed = encoded[index], encoded[index].inputs
        if needed > row_tokens:
            raise ValueError(f"an example of {needed} positions does not fit {row_tokens}")
        place = next((i for i in range(first_open, len(rows)) if room[i] >= needed), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(row_tokens)
            first_open = max(first_open, len(rows) - OPEN_ROWS)
        rows[place].append(example)
        room[place] -= needed
    return [Line(tuple(row), row_tokens - left) for row, left in zip(rows, room, strict=True)]


@dataclass
class Row:
    """Trees of tokens: the id and the position of each token; its position is its depth.

    The token at index ``reads[i]`` predicts ``targets[i]``, which belongs to sequence number ``owners[i]``.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    def add(self, sequence: Encoded, owner: int, shared: Sequence[int] = ()) -> list[int]:
        """Add a sequence whose first tokens are those at indices ``shared``; return the indices of all its tokens."""
        path, targets = sequence.path, sequence.targets
        places = [*shared, *range(len(self.ids), len(self.ids) + len(path) - len(shared))]
        self.ids += path[len(shared) :]
        self.positions += range(len(shared), len(path))
        self.reads += places[sequence.first :]
        self.targets += targets
        self.owners += [owner] * len(targets)
        return places

    def ancestry(self, place: int) -> list[int]:
        """The indices of a token's ancestors, from the root, and its own index."""
        path = [place]
        for earlier in range(place - 1, -1, -1):
            if self.positions[earlier] == self.positions[path[-1]] - 1:
                path.append(earlier)
        return path[::-1]

    @property
    def branches(self) -> bool:
        """Whether plain causal attention would be wrong."""
        return any(place != position for place, position in enumerate(self.positions))


def side_by_side(examples: Sequence[Encoded]) -> Row:
    """One row of all sequences, in order, without shared prefixes."""
    row = Row()
    for owner, example in enumerate(examples):
        row.add(example, owner)
    return row


def as_trees(sequences: Sequence[Encoded], *, row_tokens: int = ROW_TOKENS) -> list[Row]:
    """Rows of all sequences in which shared prefixes are held once; each sequence has a prompt and an answer.

    Sorting by tokens makes sequences with a common prefix neighbours.
    """
    rows = [Row()]
    last: list[int] = []
    places: list[int] = []
    for owner in sorted(range(len(sequences)), key=lambda index: sequences[index].path):
        path = sequences[owner].path
        shared = common_prefix([last, path])
        if rows[-1].ids and len(rows[-1].ids) + len(path) - shared > row_tokens:
            rows.append(Row())
            shared = 0
        places = rows[-1].add(sequences[owner], owner, places[:shared])
        last = path
    return rows if sequences else []


def alone(sequences: Sequence[Encoded]) -> list[Row]:
    """One row for each sequence, for a model that fails ``reads_trees``."""
    rows = [Row() for _ in sequences]
    for owner, sequence in enumerate(sequences):
        rows[owner].add(sequence, owner)
    return rows


def batches(rows: Sequence[Row], *, tokens: int) -> Iterator[list[Row]]:
    """The rows, longest first, in groups of at most ``tokens`` tokens with padding, or of one row."""
    group: list[Row] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if group and (len(group) + 1) * len(group[0].ids) > tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
