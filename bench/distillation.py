"""Chunks a second and memory of one distillation step: distil-whisper's, plainly, beside ours.

    python bench/distillation.py [--batch 8] [--steps 4] [--rounds 2] [--model packaged:whisper-base]
    python bench/distillation.py --random-weights large-v2 --batch 32 --precision bf16      # on a GPU

Same rows, same initial student, same device and precision. Each way runs in a process of its own (memory is then its
own), in turn, `--rounds` times, so that a busy machine is busy for all; the first step of each is not counted.
Rows are the sample audio, packed up to `--row-s` seconds as the labeling packs it, with its manifest's texts;
with random weights they are noise and 150 random tokens. `plain-448` pads labels as distil-whisper does,
`plain-longest` to the longest row: the difference between the two is padding, what remains is the loss.

On the CPU memory is the process's largest resident set after loading, in which both models count. On CUDA it is what
the allocator had at most; utilisation counts only what the method asks for (the encoder once, the teacher's decoder
forward, the student's there and back), so padding is no merit.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("distillation_worker.py")
WAYS = ("plain-448", "plain-longest", "ours")
AGREE = 1e-4  # relative; float32 sums in another order


def run(way: str, options: argparse.Namespace) -> Any:
    """One measurement in a process of its own."""
    given = json.dumps(vars(options) | {"way": way})
    done = subprocess.run([sys.executable, str(WORKER), given], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, list[Any]], options: argparse.Namespace) -> list[str]:
    """A Markdown table; ratios are to the first way."""
    first = found[WAYS[0]][0]
    lines = [
        f"{options.random_weights or options.model}, batch {options.batch}, {options.precision}, {first['device']}; "
        f"rows of {first['audio_s']:.0f} s, up to {first['positions']} positions; "
        f"{first['flops'] / 1e12:.3f} TFLOP a chunk",
        "",
        "| step | s a step | chunks/s | × | peak MiB | × | beyond loaded MiB | × | loss, first → last | of peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    base: tuple[float, ...] = ()
    for way, runs in found.items():
        seconds = statistics.median(second for each in runs for second in each["seconds"])
        peak = max(each["peak_mib"] for each in runs)
        beyond = max(each["peak_mib"] - each["loaded_mib"] for each in runs)
        values = (options.batch / seconds, peak, beyond)
        base = base or values
        speed, memory, extra = (value / of for value, of in zip(values, base, strict=True))
        ceiling = first["flops_peak"]
        used = f"{values[0] * first['flops'] / ceiling:.0%}" if ceiling else "–"
        lines.append(
            f"| {way} | {seconds:.3f} | {values[0]:.2f} | {speed:.2f} | {peak:,.0f} | {memory:.2f} | {beyond:,.0f} "
            f"| {extra:.2f} | {runs[0]['first'][0]:.3f} → {runs[0]['last'][0]:.3f} | {used} |"
        )
    return lines


def agreement(found: Any) -> str:
    """Whether both losses are one number, on equal targets.

    Raises:
        SystemExit: they are not.
    """
    pairs = list(zip(found["plain"], found["ours"], strict=True))
    worst = max(abs(ours - theirs) / max(abs(theirs), 1e-9) for theirs, ours in pairs)
    text = "; ".join(
        f"{name} {theirs:.6f} / {ours:.6f}" for name, (theirs, ours) in zip(("loss", "CE", "KL"), pairs, strict=True)
    )
    if worst > AGREE:
        raise SystemExit(f"plain and ours disagree on {found['targets']} equal targets: {text}")
    return f"On {found['targets']} equal targets, plain / ours: {text} (largest relative difference {worst:.1e})."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="rows a step, in one micro-batch")
    parser.add_argument("--steps", type=int, default=4, help="counted steps in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="packaged:whisper-base")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--row-s", type=float, default=30.0, help="rows are packed up to this; 0: one utterance a row")
    parser.add_argument("--random-weights", choices=("large-v2", "tiny"), help="instead of --model")
    parser.add_argument("--compile", action="store_true", help="torch.compile the frozen parts of ours")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=128, help="that teacher and student write, on CUDA or when asked")
    parser.add_argument("--generate", action="store_true", help="time decoding as well")
    parser.add_argument("--generate-batch", type=int, nargs="*", default=[1, 16], help="chunks decoded at once")
    options = parser.parse_args()
    print(agreement(run("agree", argparse.Namespace(**vars(options) | {"precision": "float32"}))), flush=True)
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS:
            found[way].append(run(way, options))
            seconds = statistics.median(found[way][-1]["seconds"])
            print(f"round {number + 1}, {way}: {seconds:.3f} s a step", file=sys.stderr, flush=True)
    print("\n".join(table(found, options)), flush=True)
    if options.generate or options.random_weights:
        for batch in options.generate_batch:
            seconds = run("generate", argparse.Namespace(**vars(options) | {"batch": batch}))
            print(
                f"\n{options.tokens} tokens for {batch} chunks at once, encoder included: "
                f"teacher {seconds['teacher']:.3f} s, student {seconds['student']:.3f} s, "
                f"{seconds['teacher'] / seconds['student']:.2f} ×",
                flush=True,
            )


if __name__ == "__main__":
    main()
