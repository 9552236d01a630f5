"""Where audio comes from: files, object stores, https and uploads; which of them a batch may refer to.

`check_allowed` guards, `describe` and `from_path` make the `Source` a batch holds, `open_source` gives its bytes.
"""

from k2d.sources.allow import check_allowed
from k2d.sources.uris import MEDIA_EXTENSIONS, describe, expand, from_path, open_source

__all__ = ["MEDIA_EXTENSIONS", "check_allowed", "describe", "expand", "from_path", "open_source"]
