"""The report's sections on how to read it: in short, and the definition of every figure."""

from trainer.study.blocks import Paragraph, Section
from trainer.study.judge import RANDOM_ORDERS
from trainer.study.resampling import BootstrapOptions


def how_to_read_section() -> Section:
    """What a reader needs for the first tables."""
    texts = (
        "Label MER is the share of words that are wrong (a Han character counts as a word): 0.10 is one in ten. A"
        " student learns these errors. Choose how many of the hours you need, and take the filter whose labels are best"
        " there.",
        "A policy with another α keeps another share of the hours: “At each α” says which. Use it as `--policy` of"
        " `k2d freeze`; α is a line of the policy's file.",
        "Square brackets are 95 % bands: how far the figure would move with other recordings of the same kind. Few"
        " recordings give wide bands, and recordings of another kind are outside all of them. Bands of two filters may"
        " overlap although one is clearly better: the differences under “Risk–coverage” tell.",
    )
    return Section("How to read this", tuple(map(Paragraph, texts)))


def definitions_section(options: BootstrapOptions) -> Section:
    """Define every figure of the report."""
    texts = (
        "True MER of a label: its mixed edits against its reference over the reference's tokens; numbers as written or"
        " as spoken, whichever is nearer. Where nothing is said, every token of the label is an edit and the true MER"
        " is infinite. Label MER of several labels: the sum of their edits over the sum of their reference tokens (at"
        " least one).",
        "Risk–coverage curve: labels are sorted by score, best first; x is the share of all labels' seconds that is"
        " kept, y the label MER of what is kept. Labels of equal score are kept together, each by the same part:"
        " seconds, edits and tokens grow in proportion from one score to the next. What a rule rejects comes last, as"
        " equal. The area is the mean of y over 500 equal steps of x from 0 to 1; y is not capped.",
        f"Bands: 95 % percentiles of {options.draws} draws (seed {options.seed}) of recordings with replacement;"
        " degraded versions of one recording, and all chunks of one, are drawn together. Differences and ratios are"
        " taken within each draw; “draws below” is the share of draws in which the first is smaller. Scores and orders"
        " are fixed.",
        f"Random: the mean and 95 % range over {RANDOM_ORDERS} random orders, at the same share of hours. Precision: of"
        " the labels a filter drops, the share with true MER above the limit; recall: of those labels, the share it"
        " drops. AUC: how often a label above the limit is scored worse than one below it, equal scores half.",
        "Scores: MER, PER, the composite and their bounded forms as `k2d.filtering.policy` computes them from the first"
        " validator, with the paper's rule on loops; every policy with its own rules. Log-probability: 1 −"
        " e^(mean log-probability of the teacher). Whisper's own rules: compression ratio above 2.4 or mean"
        " log-probability below -1. Features alone have no rules.",
        "Chunks of recordings longer than 30 s are scored against the sentences of the timeline that their span covers;"
        " a sentence that crosses an edge may be left out in part, whichever part is nearest to the label.",
    )
    return Section("Definitions", tuple(map(Paragraph, texts)))
