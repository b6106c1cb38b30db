"""Whether a zip archive holds what was put into it: ``torch.save`` writes checksums, which ``torch.load`` doesn't compare."""

from __future__ import annotations

import os
import zipfile


def altered_member(path: str | os.PathLike[str]) -> str | None:
    """The name of a member that was altered since it was written, or None; what is no archive, or only part of one, has none.

    An archive that was written without checksums (``torch.serialization.set_crc32_options(False)``) looks like an altered one.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except Exception as error:  # the module raises whatever a file leads it to
        return f"a member ({type(error).__name__})"
