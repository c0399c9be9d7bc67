#!/usr/bin/env python3
"""Makes a bucket unless it is there: `make-bucket NAME`, at $MLFLOW_S3_ENDPOINT_URL (nothing: Amazon's).

Keys come from $AWS_SHARED_CREDENTIALS_FILE or wherever else boto3 looks for them.
"""

import os
import sys

import boto3
from botocore.exceptions import ClientError


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: make-bucket NAME\n")
        return 2
    store = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)
    try:
        store.head_bucket(Bucket=arguments[0])
        sys.stdout.write(f"bucket {arguments[0]}: there already\n")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        store.create_bucket(Bucket=arguments[0])
        sys.stdout.write(f"bucket {arguments[0]}: made\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
