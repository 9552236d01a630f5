"""What can go wrong in training, each with its ids as attributes."""

from k2d.errors import K2DError


class TrainingDiverged(K2DError):
    """The loss is no number any more."""

    code = "training_diverged"


class NoTrainingData(K2DError):
    """Nothing in the dataset can be trained on."""

    code = "no_training_data"
    status = 422


class ExportDrift(K2DError):
    """An export does not say what its student says."""

    code = "export_drift"
