"""The errors a user can cause or meet; the command line turns each into an exit code."""


class InputError(ValueError):
    """Something the user gave is not usable; raised before anything is written (exit code 2)."""


class ManifestError(InputError):
    """A benchmark manifest does not say what it must."""


class DataError(InputError):
    """An instruction file, an image or a predictions file does not hold what it must."""


class SnapshotError(InputError):
    """A saved file of a run is missing, damaged or of another schema."""


class RunFailed(RuntimeError):
    """The work itself failed after good input (exit code 1)."""
