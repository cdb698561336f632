"""What goes wrong with data."""


class DataUnavailableError(RuntimeError):
    """The data set is not on this machine, or no source of it could be reached."""


class CorruptDataError(RuntimeError):
    """A file is not what its recorded digest or its format says it must be."""
