"""The model card of an export: where the model comes from, how it was trained, its error rates, how to use it."""

import json
from pathlib import Path
from typing import Any, Final

import yaml

from k2d.errors import BadRequest
from k2d.whisper.hub import is_id
from trainer.export.record import Export
from trainer.options import Recipe

TASK: Final = "automatic-speech-recognition"
LIBRARIES: Final = {"transformers": "transformers", "ctranslate2": "ctranslate2", "onnx": "onnx", "ggml": "whisper.cpp"}
TAGS: Final = ("whisper", "code-switching", "knowledge-distillation", "k2d")
# metric of `k2d eval` → its name in the card
METRICS: Final = {
    "mer": "mixed error rate",
    "zh_cer": "Mandarin character error rate",
    "en_wer": "English word error rate",
    "switch": "switch-point error rate",
}


def card(export: Export, evaluation: dict[str, Any] | None, *, licence: str = "other") -> str:
    """The text of README.md: YAML front matter as model hubs read it, then Markdown. What is not known is left out.

        (folder / "README.md").write_text(card(export, read_evaluation(Path("eval/first/report.json"))))

    Args:
        evaluation: report.json of `k2d eval`, its last model this one or the one with the same digest.
    """
    from jinja2 import Environment, PackageLoader

    results = _results(evaluation, export.source.digest) if evaluation else None
    environment = Environment(
        loader=PackageLoader("trainer.export"),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters["cell"] = _cell
    front = yaml.safe_dump(_front(export, results, licence), allow_unicode=True, sort_keys=False)
    text = environment.get_template("card.md.j2").render(
        name=export.folder.name,
        export=export,
        run=export.source.run,
        recipe=_decisions(export.source.recipe),
        results=results,
        total_mb=export.bytes / 1e6,
    )
    return f"---\n{front}---\n\n{text}"


def read_evaluation(file: Path | None) -> dict[str, Any] | None:
    """A report.json of `k2d eval`.

    Raises:
        BadRequest: the file does not exist, or is something else.
    """
    if file is None:
        return None
    try:
        report = json.loads(file.read_text("utf-8"))
        if report["models"] and report["set"]["name"]:
            return dict(report)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest(
            f"{file} is not an evaluation: {error}", hint="give report.json of `k2d eval --out`"
        ) from error
    raise BadRequest(f"{file} names no model", hint="give report.json of `k2d eval --out`")


def _front(export: Export, results: dict[str, Any] | None, licence: str) -> dict[str, Any]:
    teacher = export.source.run.get("teacher", {}).get("reference", "")
    front: dict[str, Any] = {
        "license": licence,
        "language": ["zh", "en"],
        "library_name": LIBRARIES[export.format],
        "pipeline_tag": TASK,
        "tags": list(TAGS),
    }
    if is_id(teacher):
        front["base_model"] = teacher
    if results:
        metrics = [{"type": row["metric"], "name": row["name"], "value": row["this"]} for row in results["rows"]]
        front["model-index"] = [
            {
                "name": export.folder.name,
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
    """This model's figures in an evaluation, and those of the model it was compared with, in percent."""
    models = evaluation["models"]
    this = next((results for results in models if results["model"]["digest"] == digest), models[-1])
    first = models[0] if models[0] is not this else None
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


def _percent(results: dict[str, Any], metric: str) -> float | None:
    value = results["figures"][metric]["rate"]["value"]
    return None if value is None else round(100 * value, 2)


def _band(rate: dict[str, Any]) -> str:
    return "" if rate["low"] is None else f"{100 * rate['low']:.2f}–{100 * rate['high']:.2f}"


def _decisions(recipe: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """The recipe's values that decide what is learned, as rows: key, value, description."""
    fields = Recipe.model_fields
    shown = list(fields)[: list(fields).index("seed") + 1]  # after it: how the run goes, and what is kept
    return [(key, recipe[key], fields[key].description or "") for key in shown if recipe.get(key) is not None]


def _cell(value: Any) -> str:
    """Text for one cell of a Markdown table: it cannot end the cell or the line."""
    return str(value).replace("|", "\\|").replace("\n", " ")
