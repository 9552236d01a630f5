"""Audio sources: local files, object stores, https and uploads.

`check_allowed` applies the allow-list, `describe` and `from_path` return the `Source` that a batch holds, `open_source`
opens it for reading.
"""

from k2d.sources.allow import check_allowed
from k2d.sources.inputs import Inputs, collect
from k2d.sources.uris import (
    MEDIA_EXTENSIONS,
    channel_key,
    content_key,
    current_key,
    describe,
    describe_lenient,
    expand,
    from_path,
    from_path_lenient,
    is_file,
    is_marked,
    open_source,
    with_known_content,
)

__all__ = [
    "MEDIA_EXTENSIONS",
    "Inputs",
    "channel_key",
    "check_allowed",
    "collect",
    "content_key",
    "current_key",
    "describe",
    "describe_lenient",
    "expand",
    "from_path",
    "from_path_lenient",
    "is_file",
    "is_marked",
    "open_source",
    "with_known_content",
]
