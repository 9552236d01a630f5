"""The trainer's errors, each with the ids it is about as attributes."""

from k2d.errors import K2DError


class TrainingDiverged(K2DError):
    """The loss or the gradient became NaN or infinite."""

    code = "training_diverged"


class NoTrainingData(K2DError):
    """Nothing in the dataset can be trained on."""

    code = "no_training_data"
    status = 422


class RowProcessDied(K2DError):
    """A process that prepares training rows ended, or cannot be started."""

    code = "row_process_died"


class ExportDrift(K2DError):
    """An export's transcripts differ from its student's."""

    code = "export_drift"
