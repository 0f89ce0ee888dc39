"""Errors that a user can mend; wrong calls raise ``ValueError`` or ``TypeError``."""


class NapariSacError(Exception):
    """Something a user can mend: the message says what happened and what to do."""


class Cancelled(NapariSacError):
    """The user asked for the running work to stop; nothing was changed."""


class ImageFormatError(NapariSacError):
    """An image that cannot be read, or that has no pixels to segment."""


class ChannelsNotChosenError(ImageFormatError):
    """An image that is read once somebody says which of its channels show nuclei."""


class LabelFormatError(NapariSacError):
    """A label file that cannot be read or does not fit its image."""


class ModelNotFoundError(NapariSacError):
    """A model or adapter name that is neither registered nor on disk."""


class WeightsError(NapariSacError):
    """A weight file that is damaged, hostile, or made for another model."""


class IncompatibleAdapterError(NapariSacError):
    """An adapter that is damaged or was trained on another base model."""


class DownloadError(NapariSacError):
    """A download that could not be finished or does not have the expected hash."""


class DeviceError(NapariSacError):
    """A device that is not there, or has too little memory."""


class OutputError(NapariSacError):
    """A result that could not be written."""


class SessionError(NapariSacError):
    """A session that is damaged, from a newer version, or open elsewhere."""


class TrainingDataError(NapariSacError):
    """Reviewed images that nothing can be learned from."""


def reason_of(error: BaseException) -> str:
    """Return why, without the path that the sentence around it names already."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
