"""The exceptions that st_modules raises; each message names the input, what was wrong and what to do."""


class STModulesError(Exception):
    """Base class of every exception that this package defines."""


class InputError(STModulesError, ValueError):
    """An item passed to ``encode`` (or to training) cannot be embedded."""


class ImageError(InputError):
    """An image is missing, unreadable, over a limit, or not allowed to be fetched."""


class UnknownNameError(STModulesError, ValueError):
    """A name that nothing has."""


class UnknownModelError(UnknownNameError):
    """A model name that the catalog does not have."""


class CheckpointError(STModulesError, ValueError):
    """Model files are missing, damaged, or do not fit the architecture that they name."""


class MissingExtraError(STModulesError, ImportError):
    """A package of an optional extra is not installed."""
