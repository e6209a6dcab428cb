#!/bin/sh
# Stands in for one of migrations, indexes, queue declarations and buckets.
set -e
echo "initialising $PLATFORM_NAME: $1"
