"""The model card of an export: where the model comes from, how it was trained, how well it hears, how to use it."""

import json
from pathlib import Path
from typing import Any

import yaml

from k2d.errors import BadRequest
from k2d.whisper.hub import is_id
from trainer.export.made import Export
from trainer.options import Recipe

TASK = "automatic-speech-recognition"
LIBRARIES = {"transformers": "transformers", "ctranslate2": "ctranslate2", "onnx": "onnx", "ggml": "whisper.cpp"}
TAGS = ("whisper", "code-switching", "knowledge-distillation", "k2d")
# metric of `k2d eval` → what the card calls it
METRICS = {
    "mer": "mixed error rate",
    "zh_cer": "Mandarin character error rate",
    "en_wer": "English word error rate",
    "switch": "switch-point error rate",
}


def card(made: Export, evaluation: dict[str, Any] | None, *, licence: str = "other") -> str:
    """The text of README.md: YAML front matter as model hubs read it, then Markdown. What is not known is left out.

    Args:
        evaluation: report.json of `k2d eval`, its last model this one or the one with the same digest.
    """
    from jinja2 import Environment, PackageLoader

    results = _results(evaluation, made.source.digest) if evaluation else None
    environment = Environment(
        loader=PackageLoader("trainer.export"),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters["cell"] = _cell
    front = yaml.safe_dump(_front(made, results, licence), allow_unicode=True, sort_keys=False)
    text = environment.get_template("card.md.j2").render(
        name=made.folder.name,
        made=made,
        run=made.source.run,
        recipe=_changes(made.source.recipe),
        results=results,
        total_mb=made.bytes / 1e6,
    )
    return f"---\n{front}---\n\n{text}"


def read_evaluation(file: Path | None) -> dict[str, Any] | None:
    """A report.json of `k2d eval`.

    Raises:
        BadRequest: there is no such file, or it is something else.
    """
    if file is None:
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
        if found["models"] and found["set"]["name"]:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"{file} is no evaluation: {error}", hint="give report.json of `k2d eval --out`") from error
    raise BadRequest(f"{file} names no model", hint="give report.json of `k2d eval --out`")


def _front(made: Export, results: dict[str, Any] | None, licence: str) -> dict[str, Any]:
    teacher = made.source.run.get("teacher", {}).get("reference", "")
    front: dict[str, Any] = {
        "license": licence,
        "language": ["zh", "en"],
        "library_name": LIBRARIES[made.format],
        "pipeline_tag": TASK,
        "tags": list(TAGS),
    }
    if is_id(teacher):
        front["base_model"] = teacher
    if results:
        metrics = [{"type": row["metric"], "name": row["name"], "value": row["this"]} for row in results["rows"]]
        front["model-index"] = [
            {
                "name": made.folder.name,
                "results": [
                    {
                        "task": {"type": TASK},
                        "dataset": {"name": results["set"], "type": results["set"]},
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return front


def _results(evaluation: dict[str, Any], digest: str) -> dict[str, Any]:
    """This model's figures in an evaluation, beside those of the model it was compared with, in percent."""
    sides = evaluation["models"]
    this = next((side for side in sides if side["model"]["digest"] == digest), sides[-1])
    first = sides[0] if sides[0] is not this else None
    rows = [
        {
            "metric": metric,
            "name": name,
            "this": _percent(this, metric),
            "band": _band(this["figures"][metric]["rate"]),
            "first": _percent(first, metric) if first else None,
        }
        for metric, name in METRICS.items()
        if this["figures"].get(metric, {}).get("rate", {}).get("value") is not None
    ]
    return {
        "set": evaluation["set"]["name"],
        "hours": evaluation["set"]["seconds"] / 3600,
        "pseudo_labels": evaluation["set"]["pseudo_labels"],
        "engine": f"{this['model']['engine']}, {this['model']['compute_type']}",
        "prompt": evaluation["language"],
        "first": first["reference"] if first else None,
        "real_time": this["speed"]["real_time"],
        "first_real_time": first["speed"]["real_time"] if first else None,
        "rows": rows,
    }


def _percent(side: dict[str, Any], metric: str) -> float | None:
    value = side["figures"][metric]["rate"]["value"]
    return None if value is None else round(100 * value, 2)


def _band(rate: dict[str, Any]) -> str:
    return "" if rate["low"] is None else f"{100 * rate['low']:.2f}–{100 * rate['high']:.2f}"


def _changes(recipe: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """What a recipe decides, as rows: key, value, what it is; how it ran and what it kept are left out."""
    fields = Recipe.model_fields
    shown = list(fields)[: list(fields).index("seed") + 1]
    return [(key, recipe[key], fields[key].description or "") for key in shown if recipe.get(key) is not None]


def _cell(value: Any) -> str:
    """Text that cannot end a table's cell or line."""
    return str(value).replace("|", "\\|").replace("\n", " ")
