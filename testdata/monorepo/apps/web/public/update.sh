#!/bin/sh
# An executable file.
exit 0
