"""Buckets in a real S3 server (moto's) that all tests of a process share: what moto stores outlives a server."""

import itertools
from typing import Any, Final

import boto3

OPTIONS: Final[dict[str, Any]] = {"key": "testing", "secret": "testing"}  # of s3fs
SECRETS: Final = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}

_numbers = itertools.count()


def client(endpoint: str) -> Any:
    """A client of the S3 server at this URL."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


def new_bucket(endpoint: str) -> str:
    """The name of a bucket that nobody else has."""
    name = f"bucket-{next(_numbers)}"
    client(endpoint).create_bucket(Bucket=name)
    return name
